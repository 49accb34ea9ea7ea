-- Record what became of a run, if nobody else has: the entry must still wait for the run that the caller saw.
-- KEYS[1] pool prefix
-- ARGV name, next run as the caller saw it, next run from now on ('' none: the entry is over, and kept like a result),
--      runs missed, runs made, field, value, ...
-- returns 1, or 0 where the entry is gone or has moved on
local key, onward = P .. 'schedule:' .. ARGV[1], ARGV[3]
if call('HGET', key, 'next_ms') ~= ARGV[2] then
  return 0
end
call('HSET', key, 'next_ms', onward, unpack(ARGV, 6))
call('HINCRBY', key, 'missed', ARGV[4])
call('HINCRBY', key, 'runs', ARGV[5])
if onward == '' then
  call('ZADD', P .. 'schedules', '+inf', ARGV[1])
  call('PEXPIRE', key, TERMS.RESULT_TTL_MS)
else
  call('ZADD', P .. 'schedules', onward, ARGV[1])
end
return 1
