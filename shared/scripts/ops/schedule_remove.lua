-- Take an entry out of the timetable.
-- KEYS[1] pool prefix
-- ARGV name
-- returns 1, or 0 where there was none
call('ZREM', P .. 'schedules', ARGV[1])
return call('DEL', P .. 'schedule:' .. ARGV[1])
