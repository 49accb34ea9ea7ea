-- Write the pool's config once, or find what was written.
-- KEYS[1] pool prefix
-- ARGV field, value, ...
-- returns the fields and values that hold, flat
local key = P .. 'config'
if call('EXISTS', key) == 0 then
  call('HSET', key, unpack(ARGV))
end
return call('HGETALL', key)
