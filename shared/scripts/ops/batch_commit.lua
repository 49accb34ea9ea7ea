-- uses: batches
-- Take note of a part: these lines are answered, and their answers stand in the files of that name. Each line once.
-- KEYS[1] pool prefix
-- ARGV BATCH_COMMIT, then each line's number
-- returns 1 (also when this very part is noted already), or 0: another holds the batch, or it is further than the
--      caller knows
local id, part = ARGV[BATCH_COMMIT.id], tonumber(ARGV[BATCH_COMMIT.part])
if not holds_batch(id, ARGV[BATCH_COMMIT.token]) then
  return 0
end
local key, parts, answered = batch_of(id), P .. 'batch_parts:' .. id, P .. 'batch_answered:' .. id
local noted = call('LLEN', parts)
if noted == part + 1 and call('LINDEX', parts, -1) == ARGV[BATCH_COMMIT.name] then
  return 1
end
if noted ~= part then
  return 0
end
for i = BATCH_COMMIT.WIDTH + 1, #ARGV do
  if call('GETBIT', answered, ARGV[i]) == 1 then
    return 0
  end
end
for i = BATCH_COMMIT.WIDTH + 1, #ARGV do
  call('SETBIT', answered, ARGV[i], 1)
end
call('RPUSH', parts, ARGV[BATCH_COMMIT.name])
call('HINCRBY', key, 'completed', ARGV[BATCH_COMMIT.completed])
call('HINCRBY', key, 'failed', ARGV[BATCH_COMMIT.failed])
call('HINCRBY', key, 'prompt_tokens', ARGV[BATCH_COMMIT.prompt_tokens])
call('HINCRBY', key, 'completion_tokens', ARGV[BATCH_COMMIT.completion_tokens])
if ARGV[BATCH_COMMIT.ended_early] == '1' then
  call('HSET', key, 'ended_early', 1)
end
return 1
