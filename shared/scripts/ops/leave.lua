-- uses: membership
-- A worker is gone, on purpose. One that has another's name by now, or had it taken, leaves nothing of the other's.
-- KEYS[1] pool prefix
-- ARGV LEAVE; boot '' is whoever has the name
-- returns 1, or 0 where the name is another's
local worker, boot = ARGV[LEAVE.worker], ARGV[LEAVE.boot]
local key = P .. 'worker:' .. worker
local holder = call('HGET', key, 'boot') or ''
if boot ~= '' and holder ~= '' and holder ~= boot then
  return 0
end
call('DEL', key)
redis.pcall('ZREM', P .. 'workers', worker) -- where an older release kept a set, the next beat replaces it
mark_of_members(call('SREM', P .. 'serving', worker))
return 1
