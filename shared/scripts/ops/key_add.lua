-- uses: trail
-- Add an API key. One that was revoked makes room for a new one of its name; what it used still counts.
-- KEYS[1] partition prefix
-- ARGV KEY_ADD, field, value, ...
-- returns 1, or 0 where that name is another key's
local name, digest = ARGV[KEY_ADD.name], ARGV[KEY_ADD.digest]
local key = P .. 'key:' .. name
local known, revoked = unpack(call('HMGET', key, 'digest', 'revoked_ms'))
if known == digest then
  return 1
elseif known and revoked == '' then
  return 0
end
call('DEL', key)
call('HSET', key, 'name', name, 'digest', digest, 'created_ms', AT, 'revoked_ms', '', unpack(ARGV, KEY_ADD.WIDTH + 1))
call('HSET', P .. 'secrets', digest, name)
for _, other in ipairs(call('ZRANDMEMBER', P .. 'keys', TERMS.MAX_JOBS)) do
  if call('EXISTS', P .. 'key:' .. other) == 0 then -- revoked long ago
    call('ZREM', P .. 'keys', other)
  end
end
call('ZADD', P .. 'keys', NOW, name)
add_to_trail(digest, ARGV[KEY_ADD.by], 'key added', name, 'done', ARGV[KEY_ADD.note])
return 1
