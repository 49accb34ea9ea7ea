-- Who lives, by when each vanishes without another beat: `workers` are all, `serving` those that take jobs. `members` is a
-- mark that changes with who serves, so that a beat need not read who the others are.
local MOST_AHEAD = 600000 -- no beat lives so long: such a one was written before the server's clock was set back
local KEPT = 3600000

local function zset(name)
  local key = P .. name
  local kind = call('TYPE', key).ok
  if kind ~= 'zset' and kind ~= 'none' then -- an older release kept a set
    call('DEL', key)
  end
  return key
end

local function prune(key)
  return call('ZREMRANGEBYSCORE', key, '-inf', NOW)
    + call('ZREMRANGEBYSCORE', key, string.format('(%d', NOW + MOST_AHEAD), '+inf')
end

local function change_members(changes)
  local key = P .. 'members'
  local mark = call('GET', key)
  if changes > 0 or not mark then
    mark = string.format('%d', math.max(NOW, (tonumber(mark) or 0) + 1))
    call('SET', key, mark, 'PX', KEPT)
  end
  return mark
end

local function enter(worker, ttl, serves)
  local workers, serving = zset('workers'), zset('serving')
  prune(workers)
  call('ZADD', workers, NOW + ttl, worker)
  call('PEXPIRE', workers, KEPT)
  local changes = prune(serving)
  if serves then
    changes = changes + call('ZADD', serving, NOW + ttl, worker)
    call('PEXPIRE', serving, KEPT)
  else
    changes = changes + call('ZREM', serving, worker)
  end
  return change_members(changes)
end
