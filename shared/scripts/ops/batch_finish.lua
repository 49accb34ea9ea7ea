-- uses: batches
-- The end of a batch: its files are there, and become files of its agent. What is left of it is then cleared away.
-- KEYS[1] pool prefix
-- ARGV BATCH_FINISH, then BATCH_FILE of each file
-- returns 1 (also when it has ended already), or 0 where it is another's
local ENDED = { completed = true, failed = true, expired = true, cancelled = true }
local id, status = ARGV[BATCH_FINISH.id], ARGV[BATCH_FINISH.status]
local key = batch_of(id)
if not holds_batch(id, ARGV[BATCH_FINISH.token]) then
  return 0
end
local before, agent = unpack(call('HMGET', key, 'status', 'agent'))
if ENDED[before] then
  return 1
end
local expires = NOW + TTL.batch
for at = BATCH_FINISH.WIDTH, #ARGV - 1, BATCH_FILE.WIDTH do
  local file = ARGV[at + BATCH_FILE.id]
  call('HSET', P .. 'file:' .. file, 'id', file, 'agent', agent, 'status', 'processed', 'purpose', 'batch_output',
    'filename', ARGV[at + BATCH_FILE.filename], 'name', ARGV[at + BATCH_FILE.name],
    'bytes', ARGV[at + BATCH_FILE.bytes], 'sha256', ARGV[at + BATCH_FILE.sha256], 'created_ms', NOW,
    'expires_ms', expires)
  list_newest('files', file, agent)
  call('HINCRBY', P .. 'files_bytes', agent, ARGV[at + BATCH_FILE.bytes])
  call('ZADD', P .. 'files_due', expires, file)
  call('HSET', key, ARGV[at + BATCH_FILE.role], file)
end
call('HSET', key, 'status', status, status .. '_ms', NOW, 'errors', ARGV[BATCH_FINISH.errors], 'trouble', '')
return 1
