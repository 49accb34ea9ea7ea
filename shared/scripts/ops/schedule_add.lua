-- Add an entry to the timetable. One that is over makes room for a new one of its name.
-- KEYS[1] pool prefix
-- ARGV SCHEDULE_ADD, field, value, ...
-- returns 1, or 0 where an entry of that name is there
local name, next_ms = ARGV[SCHEDULE_ADD.name], ARGV[SCHEDULE_ADD.next_ms]
local key = P .. 'schedule:' .. name
local over = call('HGET', key, 'next_ms') == ''
if call('EXISTS', key) == 1 and not over then
  return 0
end
call('DEL', key)
call('HSET', key, 'created_ms', NOW, 'next_ms', next_ms, 'runs', 0, 'missed', 0, unpack(ARGV, SCHEDULE_ADD.WIDTH + 1))
call('ZADD', P .. 'schedules', next_ms, name)
return 1
