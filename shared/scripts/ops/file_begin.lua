-- uses: batches
-- Note a file whose content is about to come; it is forgotten if it does not.
-- KEYS[1] pool prefix
-- ARGV FILE_BEGIN, field, value, ...
-- returns 1, or 0 where its agent has as many files, or bytes, as one may have
local id, agent = ARGV[FILE_BEGIN.id], ARGV[FILE_BEGIN.agent]
local key, expires = P .. 'file:' .. id, NOW + tonumber(ARGV[FILE_BEGIN.ttl_ms])
if call('EXISTS', key) == 1 then
  return 1
end
local bytes = tonumber(call('HGET', P .. 'files_bytes', agent)) or 0
if call('ZCARD', P .. 'files_of:' .. agent) >= tonumber(ARGV[FILE_BEGIN.most])
  or bytes >= tonumber(ARGV[FILE_BEGIN.most_bytes]) then
  return 0
end
call('HSET', key, 'id', id, 'agent', agent, 'status', 'uploading', 'created_ms', NOW, 'expires_ms', expires,
  unpack(ARGV, FILE_BEGIN.WIDTH + 1))
list_newest('files', id, agent)
call('ZADD', P .. 'files_due', expires, id)
return 1
