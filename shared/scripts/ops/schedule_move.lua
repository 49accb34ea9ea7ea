-- Record what became of a run, if nobody else has: the entry must still wait for the run that the caller saw.
-- KEYS[1] pool prefix
-- ARGV SCHEDULE_MOVE (no next run: the entry is over, and kept like a result), field, value, ...
-- returns 1, or 0 where the entry is gone or has moved on
local name, onward = ARGV[SCHEDULE_MOVE.name], ARGV[SCHEDULE_MOVE.next_ms]
local key = P .. 'schedule:' .. name
if call('HGET', key, 'next_ms') ~= ARGV[SCHEDULE_MOVE.expected_ms] then
  return 0
end
call('HSET', key, 'next_ms', onward, unpack(ARGV, SCHEDULE_MOVE.WIDTH + 1))
call('HINCRBY', key, 'missed', ARGV[SCHEDULE_MOVE.missed])
call('HINCRBY', key, 'runs', ARGV[SCHEDULE_MOVE.runs])
if onward == '' then
  call('ZADD', P .. 'schedules', '+inf', name)
  call('PEXPIRE', key, TERMS.RESULT_TTL_MS)
else
  call('ZADD', P .. 'schedules', onward, name)
end
return 1
