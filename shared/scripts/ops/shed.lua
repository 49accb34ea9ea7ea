-- Keep the records of jobs that ended for a moment only: who asked has their answers. Dead letters stay.
-- KEYS[1] partition prefix
-- ARGV SHED, id...
-- returns how many were shed
local ENDED = { succeeded = true, failed = true, cancelled = true, expired = true }
local shed, ttl = 0, tonumber(ARGV[SHED.ttl_ms])
for i = SHED.WIDTH + 1, #ARGV do
  local key = P .. 'job:' .. ARGV[i]
  local state, letter = unpack(call('HMGET', key, 'state', 'dead'))
  if ENDED[state] and not letter and call('PTTL', key) > ttl then
    call('PEXPIRE', key, ttl)
    shed = shed + 1
  end
end
return shed
