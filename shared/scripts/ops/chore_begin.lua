-- Whose is a chore's tick: the first who asks, unless an earlier tick's is not done yet (within 15 s: it may never be).
-- By the server's clock: a tick of the future is nobody's yet, and one that was begun there (by a host whose clock was
-- ahead, or before the server's was set back) holds up no other.
-- KEYS[1] pool prefix
-- ARGV CHORE_BEGIN
-- returns 1, or 0 where that tick or a later one has been begun, or one is under way, or it is of the future
local BUSY_MS, SLACK_MS = 15000, 1000
local key, chore, tick = P .. 'chores', ARGV[CHORE_BEGIN.chore], tonumber(ARGV[CHORE_BEGIN.tick_ms])
local last = tonumber(call('HGET', key, chore .. '.tick_ms')) or 0
if tick > NOW + SLACK_MS or (tick <= last and last <= NOW + SLACK_MS) then
  return 0
end
local busy = tonumber(call('HGET', key, chore .. '.busy_until_ms')) or 0
if NOW < busy and busy <= NOW + BUSY_MS then
  return 0
end
call('HSET', key, chore .. '.tick_ms', ARGV[CHORE_BEGIN.tick_ms], chore .. '.began_ms', NOW,
  chore .. '.worker', ARGV[CHORE_BEGIN.worker], chore .. '.busy_until_ms', NOW + BUSY_MS)
call('PEXPIRE', key, TTL.chores)
return 1
