-- uses: aliases judgement
-- Add an adapter version to the catalog, or find that it is there. Immutable: another digest is a conflict.
-- KEYS[1] pool prefix
-- ARGV REGISTER, alias..., field, value, ... of the record
-- returns {'created' | 'exists' | 'again' | 'conflict', digest that is there}
local ref, id = ARGV[REGISTER.ref], ARGV[REGISTER.id]
local version, digest = ARGV[REGISTER.version], ARGV[REGISTER.digest]
local last_alias = REGISTER.WIDTH + tonumber(ARGV[REGISTER.aliases])
local key = P .. 'adapter:' .. ref
local stored, status, prompt_format = unpack(call('HMGET', key, 'digest', 'status', 'prompt_format'))
if stored and stored ~= digest then
  return { 'conflict', stored }
end
local outcome = 'exists'
if not stored then
  outcome = 'created'
elseif status == 'refused' or status == 'removed' then
  outcome = 'again' -- the same bytes may be reachable, servable or wanted by now
end
if outcome ~= 'exists' then
  local fields = { 'status', 'pending', 'reason', '' }
  for i = last_alias + 1, #ARGV do
    fields[#fields + 1] = ARGV[i]
  end
  local format = status == 'removed' and prompt_format or '' -- it may have served: its format is part of the version
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
for i = REGISTER.WIDTH + 1, last_alias do
  if target_of(ARGV[i]) == '' then
    move_alias(ARGV[i], ref, 'register', '-')
  end
end
return { outcome, digest }
