-- uses: batches
-- Make a batch of a file; it waits for a feeder.
-- KEYS[1] pool prefix
-- ARGV BATCH_ADD, field, value, ...
-- returns 'added' (also when it is there), 'no file', 'purpose' where the file is for something else, or 'full'
local id, agent, file = ARGV[BATCH_ADD.id], ARGV[BATCH_ADD.agent], ARGV[BATCH_ADD.input_file]
local key = batch_of(id)
if call('EXISTS', key) == 1 then
  return 'added'
end
local status, purpose = unpack(call('HMGET', P .. 'file:' .. file, 'status', 'purpose'))
if status ~= 'processed' then
  return 'no file'
end
if purpose ~= 'batch' then
  return 'purpose'
end
local open = 0
for _, other in ipairs(call('ZRANGE', P .. 'batches_open', 0, -1)) do
  open = open + (call('HGET', batch_of(other), 'agent') == agent and 1 or 0)
end
if open >= tonumber(ARGV[BATCH_ADD.most_open]) then
  return 'full'
end
call('HSET', key, 'id', id, 'agent', agent, 'input_file', file, 'status', 'validating', 'lease', '',
  'window_s', ARGV[BATCH_ADD.window_s], 'created_ms', NOW,
  'expires_ms', NOW + 1000 * tonumber(ARGV[BATCH_ADD.window_s]), unpack(ARGV, BATCH_ADD.WIDTH + 1))
list_newest('batches', id, agent)
call('ZADD', P .. 'batches_open', NOW, id)
call('SADD', P .. 'file_users:' .. file, id)
return 'added'
