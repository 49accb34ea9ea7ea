-- uses: batches
-- Nothing is left to do for a batch that has ended; it is shown for a while.
-- KEYS[1] pool prefix
-- ARGV BATCH_CLOSE
-- returns 1, or 0 where it is another's, or closed already
local id = ARGV[BATCH_CLOSE.id]
if not holds_batch(id, ARGV[BATCH_CLOSE.token]) then
  return 0
end
call('SREM', P .. 'file_users:' .. (call('HGET', batch_of(id), 'input_file') or ''), id)
call('ZREM', P .. 'batches_open', id)
call('DEL', P .. 'batch_parts:' .. id, P .. 'batch_answered:' .. id)
call('HSET', batch_of(id), 'lease', '', 'holder', '')
call('PEXPIRE', batch_of(id), TTL.batch)
return 1
