-- Put a hash in place of another, at once.
-- KEYS[1] pool prefix
-- ARGV key, time to live in ms, field, value, ...
-- returns nothing
call('DEL', ARGV[1])
call('HSET', ARGV[1], unpack(ARGV, 3))
call('PEXPIRE', ARGV[1], ARGV[2])
