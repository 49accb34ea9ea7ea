-- uses: aliases
-- Point an alias at a version, or delete it. One in use moves only to what a worker has approved.
-- KEYS[1] pool prefix
-- ARGV ALIAS, its name case-folded; ref '' deletes; the token is unique to this wish
-- returns {'moved', from, to} ('' for nowhere); or {'unknown' | 'pending' | 'refused' | 'removed'}: nothing was moved.
--      The same token again returns what the first call did.
local name, ref, token = ARGV[ALIAS.name], ARGV[ALIAS.ref], ARGV[ALIAS.token]
local done = outcome_of(name, token)
if done then
  return done
end
if ref == '' then
  return target_of(name) == '' and { 'unknown' } or move_alias(name, '', 'delete', token)
end
local status = call('HGET', P .. 'adapter:' .. ref, 'status') or 'unknown'
if status == 'ready' or (status == 'pending' and target_of(name) == '') then
  return move_alias(name, ref, 'set', token)
end
return { status }
