-- uses: aliases
-- Let a part of an alias's jobs go to another version of the same adapter, or end that. Moving the alias ends it too.
-- KEYS[1] pool prefix
-- ARGV CANARY, the alias case-folded; ref '' ends it; the token is unique to this wish
-- returns {'moved', ref before, ref now} of the canary ('' for none); or {'unknown' | 'other' | 'pending' | 'refused' |
--      'removed'}: nothing was changed. The same token again returns what the first call did.
local name, ref, percent, token = ARGV[CANARY.name], ARGV[CANARY.ref], ARGV[CANARY.percent], ARGV[CANARY.token]
local done = outcome_of(name, token)
if done then
  return done
end
local target, before = target_of(name), canary_of(name)
if target == '' then
  return { 'unknown' }
end
if ref ~= '' then
  local status = call('HGET', P .. 'adapter:' .. ref, 'status') or 'unknown'
  if status ~= 'ready' then
    return { status }
  end
  if ref == target or string.match(ref, '^[^@]+') ~= string.match(target, '^[^@]+') then
    return { 'other' }
  end
  call('HSET', P .. 'canaries', name, percent .. ' ' .. ref)
else
  call('HDEL', P .. 'canaries', name)
end
log_move(name, 'canary', before, ref, token)
return { 'moved', before, ref }
