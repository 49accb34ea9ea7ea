-- uses: aliases
-- Point an alias back at its latest earlier target that still serves; again, further back.
-- KEYS[1] pool prefix
-- ARGV ROLLBACK, the name case-folded; the token is unique to this wish
-- returns {'moved', from, to}, or {'nothing', from}: no earlier target is left. The same token again returns what the
--      first call did.
local name, token = ARGV[ROLLBACK.name], ARGV[ROLLBACK.token]
local done = outcome_of(name, token)
if done then
  return done
end
local from = target_of(name)
while true do
  local ref = call('LPOP', P .. 'before:' .. name)
  if not ref then
    return { 'nothing', from }
  end
  if ref ~= from and call('HGET', P .. 'adapter:' .. ref, 'status') == 'ready' then
    return point(name, from, ref, 'rollback', token)
  end
end
