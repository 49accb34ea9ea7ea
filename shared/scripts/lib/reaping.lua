-- uses: counters endings leases losses outage record waiting
-- Jobs whose worker vanished with them, by their leases or by its own word.

local LITTLE = 8 -- jobs lost together that run again as one group
local MOST_EXONERATED = 256
local culprits = {} -- of deadly jobs found by this call, the leases under which they were lost

-- `lease`: under which it was lost; with a mark before it where its worker cannot come back for it.
local function reap_one(job, group, lease)
  leave_running(job)
  charge(job, -job.cost)
  job.lost = job.lost + 1
  count(job, 'reaped', 1)
  job.lost_leases = job.lost_leases .. ' ' .. lease
  call('HSET', P .. 'job:' .. job.id, 'lost', job.lost, 'lost_leases', job.lost_leases)
  if end_unwanted(job, 'cancelled on request; its worker vanished', 'after its worker vanished') then
    return
  end
  local times = job.lost - job.lifted
  if times >= TERMS.MAX_LOST then
    bury(job, 'Poisonous', 'its worker vanished ' .. times .. ' times in a row of ' .. job.attempts .. ' attempts')
    culprits[#culprits + 1] = job.lost_leases
  else
    enter_suspects(job, group)
  end
end

-- Deadly jobs were found: what was lost beside them, under the same leases, is held against their mates no longer. One
-- loss stays, so that those still run apart: there may be another.
local function exonerate()
  if #culprits == 0 then
    return
  end
  local guilty = {}
  for lease in string.gmatch(table.concat(culprits, ' '), '%S+') do
    guilty[lease] = true
  end
  for _, id in ipairs(call('ZRANGE', P .. 'suspects', 0, MOST_EXONERATED - 1)) do
    local job = load_job(id)
    for lease in string.gmatch(job and job.lost_leases or '', '%S+') do
      if guilty[lease] and job.lost - job.lifted > 1 then
        take_back(job, lease)
      end
    end
  end
  culprits = {}
end

-- What a worker loses becomes two groups, or one while it is little: `first` is the score of one, `counts` are how many
-- jobs each got. Its leases do not all lapse at once: what it loses while the key lives joins them.
local function groups_of(worker, number_here)
  local text = call('GET', P .. 'reaped:' .. worker) or ''
  local first, one, other = string.match(text, '^(%d+%.%d+) (%d+) (%d+)$')
  first = number(first)
  if not first or first > NOW then
    return { first = NOW + 2 * number_here / 64, counts = { 0, 0 } }
  end
  return { first = first, counts = { tonumber(one), tonumber(other) } }
end

-- The score of the group that its next job joins, of `most` that there will be.
local function join_group(groups, most)
  local counts = groups.counts
  local which = counts[1] < math.max(LITTLE, math.ceil(most / 2)) and 1 or 2
  counts[which] = counts[which] + 1
  return string.format('%.6f', groups.first + (which - 1) / 64)
end

-- Lost now. `returns`: their worker may come back.
local function reap_all(jobs, returns)
  local groups, most, workers = {}, {}, 0
  for _, job in ipairs(jobs) do
    local worker = job.worker
    if not groups[worker] then
      groups[worker] = groups_of(worker, workers)
      workers, most[worker] = workers + 1, groups[worker].counts[1] + groups[worker].counts[2]
    end
    most[worker] = most[worker] + 1
  end
  for _, job in ipairs(jobs) do
    local group = join_group(groups[job.worker], most[job.worker])
    reap_one(job, group, (returns and '' or '!') .. job.lease)
  end
  for worker, group in pairs(groups) do
    local text = string.format('%.6f %d %d', group.first, group.counts[1], group.counts[2])
    call('SET', P .. 'reaped:' .. worker, text, 'PX', TTL.reaped)
    call('ZREM', P .. 'apart', worker) -- others may run what it lost
  end
  exonerate()
end

local function dies_of_a_loss(job)
  return job.lost - job.lifted + 1 >= TERMS.MAX_LOST and not unwanted(job)
end

-- Its worker may be slow, not gone, and could not take that loss back: it gets a lease's time more to come back.
-- `due`: when its lease ended.
local function is_spared(job, due)
  if not dies_of_a_loss(job) or job.spared == due then
    return false
  end
  local later = string.format('%d', NOW + lease_in_use)
  call('HSET', P .. 'job:' .. job.id, 'spared', later)
  call('ZADD', P .. 'leases', later, job.id)
  return true
end

local function reap()
  local lapsed, lost = call('ZRANGEBYSCORE', P .. 'leases', '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, TERMS.MAX_JOBS), {}
  for i = 1, #lapsed, 2 do
    local id, job = lapsed[i], load_job(lapsed[i])
    if not job or job.state ~= 'running' then
      call('ZREM', P .. 'leases', id)
    elseif not is_spared(job, lapsed[i + 1]) then
      lost[#lost + 1] = job
    end
  end
  reap_all(lost, true)
end
