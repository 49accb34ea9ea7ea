-- Put a hash in place of another, at once.
-- KEYS[1] pool prefix
-- ARGV REPLACE, field, value, ...
-- returns nothing
call('DEL', ARGV[REPLACE.key])
call('HSET', ARGV[REPLACE.key], unpack(ARGV, REPLACE.WIDTH + 1))
call('PEXPIRE', ARGV[REPLACE.key], ARGV[REPLACE.ttl_ms])
