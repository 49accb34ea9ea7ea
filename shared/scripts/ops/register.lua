-- uses: aliases judgement
-- Add an adapter version to the catalog, or find that it is there. Immutable: another digest is a conflict.
-- KEYS[1] pool prefix
-- ARGV ref, id, version, digest, number of aliases, alias..., field, value, ...   (fields of the record)
-- returns {'created' | 'exists' | 'again' | 'conflict', digest found, worker to poke or ''}
local ref, id, version, digest = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local aliases = tonumber(ARGV[5])
local key = P .. 'adapter:' .. ref
local found = call('HMGET', key, 'digest', 'status', 'prompt_format')
if found[1] and found[1] ~= digest then
  return { 'conflict', found[1] }
end
local outcome = 'exists'
if not found[1] then
  outcome = 'created'
elseif found[2] == 'refused' or found[2] == 'removed' then
  outcome = 'again' -- the same bytes may be reachable, servable or wanted by now
end
if outcome ~= 'exists' then
  local fields = { 'status', 'pending', 'reason', '' }
  for i = 6 + aliases, #ARGV do
    fields[#fields + 1] = ARGV[i]
  end
  local format = found[2] == 'removed' and found[3] or '' -- it may have served: its format is part of the version
  call('HSET', key, unpack(fields))
  forget_judgement(key)
  if format ~= '' then
    call('HSET', key, 'prompt_format', format)
  end
  call('HSETNX', key, 'registered_ms', NOW)
  call('ZADD', P .. 'adapters', 'NX', NOW, ref)
  call('SADD', P .. 'pending', ref)
  call('HSETNX', P .. 'active', id, version)
end
for i = 6, 5 + aliases do
  if target_of(ARGV[i]) == '' then
    move_alias(ARGV[i], ref, 'register', '-')
  end
end
return { outcome, digest }
