-- uses: aliases judgement
-- A worker's verdict on a pending version. A ready one becomes its id's active version and takes its aliases.
-- KEYS[1] pool prefix
-- ARGV ref, digest judged, id, version, number of aliases, alias..., field, value, ...   (status, reason, facts)
-- returns 1, or 0 when ref is unknown, has another digest, or is decided already
local ref, id, version = ARGV[1], ARGV[3], ARGV[4]
local aliases = tonumber(ARGV[5])
local key = P .. 'adapter:' .. ref
local found = call('HMGET', key, 'digest', 'status')
if found[1] ~= ARGV[2] or found[2] ~= 'pending' then
  return 0
end
local fields = {}
for i = 6 + aliases, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
call('HSET', key, unpack(fields))
forget_judgement(key)
call('SREM', P .. 'pending', ref)
if call('HGET', key, 'status') == 'ready' then
  call('HSET', P .. 'active', id, version)
  for i = 6, 5 + aliases do
    if target_of(ARGV[i]) ~= ref then
      move_alias(ARGV[i], ref, 'register', '-')
    end
  end
end
return 1
