-- uses: batches
-- Bring a batch one step further; one that is being cancelled stays so.
-- KEYS[1] pool prefix
-- ARGV BATCH_MOVE
-- returns its status, nil where it is another's
local NEXT = { validating = 'in_progress', in_progress = 'finalizing' }
local id, wanted = ARGV[BATCH_MOVE.id], ARGV[BATCH_MOVE.status]
if not holds_batch(id, ARGV[BATCH_MOVE.token]) then
  return nil
end
local key = batch_of(id)
local status = call('HGET', key, 'status')
if NEXT[status] == wanted then
  call('HSET', key, 'status', wanted, wanted .. '_ms', NOW)
  status = wanted
end
if wanted == 'in_progress' then
  call('HSET', key, 'total', ARGV[BATCH_MOVE.total], 'trouble', '')
end
return status
