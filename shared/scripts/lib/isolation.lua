-- uses: counters presence reach record
-- Suspects, jobs whose worker vanished with them, run again apart from all others: lost once, in the groups in which
-- they were lost, halved unless they are few; lost twice, alone. So a deadly job costs its mates at most one loss more,
-- and dies of its third. Only few workers go apart for them at a time, by a place in `apart` that is kept by coming by;
-- the others' work goes on.

local PATIENCE_MS = 1000 -- so long a suspect waits for a worker that is idle; then a busy one runs dry for it
local LOOK = 16

-- Whether this worker still runs suspects; it claims nothing beside them.
local function runs_suspects(worker)
  local key = P .. 'alone:' .. worker
  local ids = call('GET', key)
  for id in string.gmatch(ids or '', '%S+') do
    local state, runner = unpack(call('HMGET', P .. 'job:' .. id, 'state', 'worker'))
    if state == 'running' and runner == worker then
      return true
    end
  end
  if ids then
    call('DEL', key)
    if workers_here() <= 1 then -- others' work first, as far as it came before now
      call('ZREM', P .. 'apart', worker)
      call('SET', P .. 'rested', NOW, 'PX', TTL.rested)
    end
  end
  return false
end

local function takes_more(ref)
  local state, max_inflight = unpack(call('HMGET', P .. 'adapter:' .. ref, 'state', 'max_inflight'))
  local cap = number(max_inflight) or 0
  return (state == 'open' or state == 'closed') and (cap == 0 or gauge('running', ref) < cap)
end

-- The one that has waited longest, of those whose adapter takes more; and its group. The others stand back.
local function next_suspect()
  local oldest = call('ZRANGE', P .. 'suspects', 0, LOOK - 1, 'WITHSCORES')
  for i = 1, #oldest, 2 do
    local id, job = oldest[i], load_job(oldest[i])
    if not job or job.state ~= 'queued' or job.lane ~= 'suspect' then
      call('ZREM', P .. 'suspects', id)
    elseif away[job.ref] then
      job = nil -- it stays where it is, for others
    elseif takes_more(job.ref) then
      return job, oldest[i + 1]
    else
      call('ZADD', P .. 'suspects', NOW, id)
    end
  end
end

-- The only worker shares its time: suspects wait for what came before them, and before the last of them ended.
local function is_their_turn(since)
  local oldest = tonumber(call('ZRANGE', P .. 'ready', 0, 0, 'WITHSCORES')[2])
  return not oldest or math.max(since, tonumber(call('GET', P .. 'rested')) or 0) <= oldest
end

local function may_go_apart(worker, since)
  local here = workers_here()
  if call('ZCARD', P .. 'apart') >= math.max(1, math.floor(here / 10)) then
    return false
  elseif here <= 1 then
    return is_their_turn(since)
  end
  return gauge('held', worker) == 0 or NOW - since >= PATIENCE_MS or since > NOW + PATIENCE_MS
end

local function has_place(worker)
  local key = P .. 'apart'
  call('ZREMRANGEBYSCORE', key, '-inf', NOW)
  call('ZREMRANGEBYSCORE', key, NOW + 2 * PRESENT_MS, '+inf')
  return call('ZSCORE', key, worker)
end

local function keep_place(worker)
  call('ZADD', P .. 'apart', NOW + PRESENT_MS, worker)
  call('PEXPIRE', P .. 'apart', TTL.apart)
end

-- What a worker that comes by has to do with suspects: whether it claims nothing else now, since it runs them or runs
-- dry for them; and the one that it may take, with its group. `asks`: it does, and gets a place if one is free.
local function goes_apart(worker, asks)
  local busy = runs_suspects(worker)
  local suspect, group = next_suspect()
  if not suspect then
    return busy
  end
  local has = has_place(worker)
  if not has and not may_go_apart(worker, tonumber(group)) then
    return busy
  end
  if has or asks or gauge('held', worker) > 0 then
    keep_place(worker)
    has = true
  end
  return busy or has and true or false, not busy and suspect, group
end

-- The same of a worker that asks again: it comes to nothing new.
local function is_apart(worker)
  return runs_suspects(worker) or call('ZSCORE', P .. 'apart', worker) and next_suspect() and true or false
end

-- A suspect and those that may run beside it: a job that was lost twice has nobody.
local function group_of(suspect, group, most)
  local group_mates = { suspect }
  if suspect.lost - suspect.lifted > 1 then
    return group_mates
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'suspects', group, group, 'LIMIT', 0, TERMS.MAX_JOBS)) do
    local job = #group_mates < most and id ~= suspect.id and load_job(id)
    if job and job.state == 'queued' and not away[job.ref] and job.lost - job.lifted == 1 then
      group_mates[#group_mates + 1] = job
    end
  end
  return group_mates
end
