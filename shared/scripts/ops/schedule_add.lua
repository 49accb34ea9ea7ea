-- Add an entry to the timetable. One that is over makes room for a new one of its name.
-- KEYS[1] pool prefix
-- ARGV name, next run in ms, field, value, ...
-- returns 1, or 0 where an entry of that name is there
local key = P .. 'schedule:' .. ARGV[1]
local over = call('HGET', key, 'next_ms') == ''
if call('EXISTS', key) == 1 and not over then
  return 0
end
call('DEL', key)
call('HSET', key, 'created_ms', NOW, 'next_ms', ARGV[2], 'runs', 0, 'missed', 0, unpack(ARGV, 3))
call('ZADD', P .. 'schedules', ARGV[2], ARGV[1])
return 1
