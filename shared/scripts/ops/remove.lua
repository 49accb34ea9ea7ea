-- Take a version out of the catalog, unless an alias points at it, or a part of its jobs goes there. Its record stays, so that its ref is never reused
-- for other content; its id then means the newest ready version left.
-- KEYS[1] pool prefix
-- ARGV ref
-- returns {'removed'}, also when it was before; {'unknown'}; or {'aliases', alias, ...}: those that point at it
local ref = ARGV[1]
local key = P .. 'adapter:' .. ref
local status, id, version = unpack(call('HMGET', key, 'status', 'id', 'version'))
if not status then
  return { 'unknown' }
end
local pointing = { 'aliases' }
local aliases = call('HGETALL', P .. 'aliases')
for i = 1, #aliases, 2 do
  if aliases[i + 1] == ref then
    pointing[#pointing + 1] = aliases[i]
  end
end
local canaries = call('HGETALL', P .. 'canaries')
for i = 1, #canaries, 2 do
  if string.match(canaries[i + 1], '^%d+ (%S+)$') == ref then
    pointing[#pointing + 1] = canaries[i]
  end
end
if #pointing > 1 then
  return pointing
end
if status == 'removed' then
  return { 'removed' }
end
call('HSET', key, 'status', 'removed', 'reason', '')
call('SREM', P .. 'pending', ref)
if call('HGET', P .. 'active', id) == version then
  call('HDEL', P .. 'active', id)
  local start = id .. '@'
  for _, other in ipairs(call('ZREVRANGE', P .. 'adapters', 0, -1)) do
    if string.sub(other, 1, #start) == start and call('HGET', P .. 'adapter:' .. other, 'status') == 'ready' then
      call('HSET', P .. 'active', id, string.sub(other, #start + 1))
      break
    end
  end
end
return { 'removed' }
