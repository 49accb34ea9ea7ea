-- Forget a file, unless an open batch reads it. Its content has been removed, or is about to be.
-- KEYS[1] pool prefix
-- ARGV id
-- returns 1, or 0 where it is in use
local key = P .. 'file:' .. ARGV[1]
for _, batch in ipairs(call('SMEMBERS', P .. 'file_users:' .. ARGV[1])) do
  if call('ZSCORE', P .. 'batches_open', batch) then
    return 0
  end
end
local agent = call('HGET', key, 'agent')
if agent then
  call('ZREM', P .. 'files_of:' .. agent, ARGV[1])
end
call('ZREM', P .. 'files', ARGV[1])
call('ZREM', P .. 'files_due', ARGV[1])
call('DEL', key, P .. 'file_users:' .. ARGV[1])
return 1
