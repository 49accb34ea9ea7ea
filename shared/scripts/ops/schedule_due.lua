-- Which entries of the timetable are due.
-- KEYS[1] pool prefix
-- ARGV how many at most
-- returns {now in ms, name, ...}, the longest due first
local due = call('ZRANGEBYSCORE', P .. 'schedules', '-inf', NOW, 'LIMIT', 0, ARGV[1])
return { string.format('%d', NOW), unpack(due) }
