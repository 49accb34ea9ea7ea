-- Who lives: `workers`, names by when each vanishes without another beat. Who of them takes jobs: the set `serving`.
-- `members` is a mark that changes with that set, so that a beat need not read who the others are.
local MOST_AHEAD = 600000 -- no beat lives so long: such a one was written before the server's clock was set back
local LOOKS = 16 -- in a fleet of n, one beat in n/16 looks for the dead

-- The mark, changed where anybody came or went.
local function mark_of_members(changes)
  local key = P .. 'members'
  local mark = call('GET', key)
  if changes > 0 or not mark then
    mark = string.format('%d', math.max(NOW, (tonumber(mark) or 0) + 1))
    call('SET', key, mark, 'PX', TTL.members)
  end
  return mark
end

-- Drop those that were silent for too long; returns how many of them took jobs.
local function prune()
  local workers, serving = P .. 'workers', P .. 'serving'
  local gone = 0
  for _, range in ipairs({ { '-inf', NOW }, { string.format('(%d', NOW + MOST_AHEAD), '+inf' } }) do
    for _, worker in ipairs(call('ZRANGEBYSCORE', workers, range[1], range[2], 'LIMIT', 0, 1000)) do
      call('ZREM', workers, worker)
      gone = gone + call('SREM', serving, worker)
    end
  end
  call('PEXPIRE', workers, TTL.members)
  call('PEXPIRE', serving, TTL.members)
  return gone
end

-- A worker is there until NOW + ttl. `known`: it was so before, and took jobs or not as it does now. Returns the mark.
local function enter(worker, ttl, serves, known)
  local workers, changes = P .. 'workers', 0
  local added = redis.pcall('ZADD', workers, NOW + ttl, worker)
  if type(added) == 'table' then -- not a zset: an older release kept a set
    call('DEL', workers)
    added = call('ZADD', workers, NOW + ttl, worker)
  end
  if added == 1 or not known then
    changes = call(serves and 'SADD' or 'SREM', P .. 'serving', worker)
  end
  if added == 1 or NOW % call('ZCARD', workers) < LOOKS then
    changes = changes + prune()
  end
  return mark_of_members(changes)
end
