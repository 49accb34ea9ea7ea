-- Whose is a chore's tick: the first who asks, unless an earlier tick's is not done yet (within 15 s: it may never be).
-- KEYS[1] pool prefix
-- ARGV chore, tick in ms, worker
-- returns 1, or 0 where that tick or a later one has been begun, or one is under way
local key, chore = P .. 'chores', ARGV[1]
if tonumber(ARGV[2]) <= (tonumber(call('HGET', key, chore .. '.tick_ms')) or 0) then
  return 0
end
if NOW < (tonumber(call('HGET', key, chore .. '.busy_until_ms')) or 0) then
  return 0
end
call('HSET', key, chore .. '.tick_ms', ARGV[2], chore .. '.began_ms', NOW, chore .. '.worker', ARGV[3],
  chore .. '.busy_until_ms', NOW + 15000)
call('PEXPIRE', key, 604800000)
return 1
