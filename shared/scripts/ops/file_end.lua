-- The content of a file is there, whole.
-- KEYS[1] pool prefix
-- ARGV FILE_END
-- returns 1, or 0 where the file is not known any more
local id = ARGV[FILE_END.id]
local key, expires = P .. 'file:' .. id, NOW + tonumber(ARGV[FILE_END.ttl_ms])
local status, agent = unpack(call('HMGET', key, 'status', 'agent'))
if not status then
  return 0
end
if status == 'uploading' then
  call('HSET', key, 'status', 'processed', 'purpose', ARGV[FILE_END.purpose], 'bytes', ARGV[FILE_END.bytes], 'sha256', ARGV[FILE_END.sha256],
    'expires_ms', expires)
  call('ZADD', P .. 'files_due', expires, id)
  call('HINCRBY', P .. 'files_bytes', agent, ARGV[FILE_END.bytes])
end
return 1
