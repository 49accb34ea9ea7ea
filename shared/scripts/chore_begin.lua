-- Whose is a chore's tick: the first who asks.
-- KEYS[1] pool prefix
-- ARGV chore, tick in ms, worker
-- returns 1, or 0 where that tick or a later one has been begun
local key, chore = P .. 'chores', ARGV[1]
if tonumber(ARGV[2]) <= (tonumber(call('HGET', key, chore .. '.tick_ms')) or 0) then
  return 0
end
call('HSET', key, chore .. '.tick_ms', ARGV[2], chore .. '.began_ms', NOW, chore .. '.worker', ARGV[3])
call('PEXPIRE', key, 604800000)
return 1
