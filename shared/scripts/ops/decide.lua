-- uses: aliases judgement
-- A worker's verdict on a pending version. A ready one becomes its id's active version and takes its aliases.
-- KEYS[1] pool prefix
-- ARGV DECIDE, alias..., field, value, ... of the record
-- returns 1, or 0 when ref is unknown, has another digest, or is decided already
local ref, id, version = ARGV[DECIDE.ref], ARGV[DECIDE.id], ARGV[DECIDE.version]
local last_alias = DECIDE.WIDTH + tonumber(ARGV[DECIDE.aliases])
local key = P .. 'adapter:' .. ref
local digest, status = unpack(call('HMGET', key, 'digest', 'status'))
if digest ~= ARGV[DECIDE.digest] or status ~= 'pending' then
  return 0
end
local fields = {}
for i = last_alias + 1, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
call('HSET', key, unpack(fields))
forget_judgement(key)
call('SREM', P .. 'pending', ref)
if call('HGET', key, 'status') == 'ready' then
  call('HSET', P .. 'active', id, version)
  for i = DECIDE.WIDTH + 1, last_alias do
    if target_of(ARGV[i]) ~= ref then
      move_alias(ARGV[i], ref, 'register', '-')
    end
  end
end
return 1
