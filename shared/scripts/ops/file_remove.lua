-- Remove a file, in two steps with that of its content between: nobody finds it from the first on, and a removal that
-- was cut off is found by its being due.
-- KEYS[1] pool prefix
-- ARGV FILE_REMOVE
-- returns 1, or 0 where an open batch reads it
local id = ARGV[FILE_REMOVE.id]
local key, users = P .. 'file:' .. id, P .. 'file_users:' .. id
if ARGV[FILE_REMOVE.step] == 'begin' then
  for _, batch in ipairs(call('SMEMBERS', users)) do
    if call('ZSCORE', P .. 'batches_open', batch) then
      return 0
    end
  end
  if call('EXISTS', key) == 1 then
    call('HSET', key, 'status', 'removing')
    call('ZADD', P .. 'files_due', NOW, id)
  end
  return 1
end
local agent, bytes = unpack(call('HMGET', key, 'agent', 'bytes'))
if agent then
  call('ZREM', P .. 'files_of:' .. agent, id)
end
if agent and bytes and call('HINCRBY', P .. 'files_bytes', agent, -(tonumber(bytes) or 0)) <= 0 then
  call('HDEL', P .. 'files_bytes', agent)
end
call('ZREM', P .. 'files', id)
call('ZREM', P .. 'files_due', id)
call('DEL', key, users)
return 1
