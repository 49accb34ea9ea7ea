-- A worker lives. A script, so that a full server does not make its workers look dead.
-- KEYS[1] pool prefix
-- ARGV worker, ttl_ms, field, value, ...
local key = P .. 'worker:' .. ARGV[1]
local fields = {}
for i = 3, #ARGV do
  fields[i - 2] = ARGV[i]
end
call('HSET', key, unpack(fields))
call('PEXPIRE', key, ARGV[2])
call('SADD', P .. 'workers', ARGV[1])
