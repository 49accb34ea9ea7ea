-- What any worker does for the whole partition when it comes by: promote, reap, expire; bounded a call.

local SILENCE_MS = 2000 -- of all, though each comes by at least once a second: nobody was there
local LONGEST_MS = 3600000 -- no worker is given a longer lease
local JUMP_MS = 1000 -- that a clock goes back by less is corrected by nobody, and hurts nobody
local MOST_REPAIRED = 2000
local MOST_EXPIRED = 200
local LITTLE = 8 -- jobs lost together that run again as one group
local TOGETHER_MS = 10000 -- so long after a loss, what its worker loses besides was lost together with it

local MOST_EXONERATED = 256

local culprits = {} -- of deadly jobs found by this call, the leases under which they were lost
local second_turned = false
local more_is_due = false -- than one call may do
local lease_in_use = TERMS.LEASE_MS -- the longest

-- Leases that end later than that end a lease from now.
local function cut_short(limit, lease)
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'leases', limit, '+inf', 'LIMIT', 0, MOST_REPAIRED)) do
    call('ZADD', P .. 'leases', NOW + lease, id)
  end
end

-- The server's clock went back: what was set by the clock as it was comes `late` ms too late. Leases end at the latest
-- a lease from now, whoever renews them; what a job waits for counts from now if it was submitted at a time to come;
-- suspects keep their order among themselves, before those that are lost from now on.
local function clock_went_back(lease, late)
  local suspects = call('ZRANGEBYSCORE', P .. 'suspects', NOW + JUMP_MS, '+inf', 'WITHSCORES', 'LIMIT', 0, MOST_REPAIRED)
  for i = 1, #suspects, 2 do
    call('ZADD', P .. 'suspects', math.min(tonumber(suspects[i + 1]) - late, NOW), suspects[i])
  end
  cut_short(NOW + lease, lease)
  for set, field in pairs({ delayed = 'due_ms', deadlines = 'deadline_ms' }) do
    for _, id in ipairs(call('ZRANGEBYSCORE', P .. set, NOW, '+inf', 'LIMIT', 0, MOST_REPAIRED)) do
      local v = call('HMGET', P .. 'job:' .. id, 'submitted_ms', field, 'retries')
      local submitted, at = number(v[1]) or NOW, number(v[2])
      local due = at and submitted > NOW and NOW + at - submitted
      if set == 'delayed' and at and not due and v[3] ~= '0' and at > NOW + 2 * TERMS.BACKOFF_MAX_MS then
        due = NOW
      end
      if due then
        call('ZADD', P .. set, due, id)
        call('HSET', P .. 'job:' .. id, field, due)
      end
    end
  end
end

-- True while leases must not be reaped: nobody was there to renew or reap (the server was down, or all workers), so
-- every owner first gets the longest lease's time to come back; and no longer, whatever the clock has done.
local function in_outage(lease_ms)
  local key = P .. 'reaper'
  local last, calm, lease = string.match(call('GET', key) or '', '^(%d+) (%d+) (%d+)$')
  if not last or tonumber(lease) > LONGEST_MS then -- never written, or not by us
    last, calm, lease = 0, 0, 0
  end
  last, calm = tonumber(last), tonumber(calm)
  local longest = math.max(tonumber(lease), lease_ms or 0) -- 0: nobody has claimed yet
  lease = longest > 0 and longest or TERMS.LEASE_MS
  lease_in_use = lease
  if last > NOW + JUMP_MS then
    clock_went_back(lease, last - NOW)
  elseif NOW - last > math.max(lease / 2, SILENCE_MS) and call('EXISTS', P .. 'leases') == 1 then
    calm = NOW + lease
  end
  calm = math.min(calm, NOW + lease)
  call('SET', key, string.format('%d %d %d', NOW, calm, longest), 'PX', 3600000)
  second_turned = math.floor(last / 1000) ~= math.floor(NOW / 1000)
  if second_turned then
    cut_short(NOW + LONGEST_MS + JUMP_MS, lease) -- of a stranger's making
  end
  return NOW < calm
end

local windows = {}

local function window_of(ref)
  windows[ref] = windows[ref] or number(call('HGET', P .. 'adapter:' .. ref, 'agent_window')) or TERMS.AGENT_WINDOW
  return windows[ref]
end

-- A delayed job is due: first in line if it comes back, else where it would be if it came now.
local function promote_one(job)
  if job.fence > 0 then
    enter_stream(job, 'again', 'left', job.worker)
    wake(job.ref, job.worker)
  elseif crowds(gauge('window:' .. job.ref, job.agent) - 1, window_of(job.ref)) then
    job.turn = NOW + TERMS.CROWD_MS
    enter_stream(job, job.priority .. '_crowd')
    wake(job.ref)
  else
    enter_stream(job, job.priority)
    wake(job.ref)
  end
  call('HSET', P .. 'job:' .. job.id, 'state', 'queued', 'lane', job.lane, 'entry', job.entry,
    'turn_ms', job.turn or '')
end

local function promote()
  local due = call('ZRANGEBYSCORE', P .. 'delayed', '-inf', NOW, 'LIMIT', 0, 100)
  more_is_due = more_is_due or #due == 100
  for _, id in ipairs(due) do
    call('ZREM', P .. 'delayed', id)
    local job = load_job(id)
    if job and job.state == 'delayed' and job.lost > job.lifted then -- a suspect, though its last worker survived it
      counted_window(job, -1)
      enter_suspects(job, AT)
    elseif job and job.state == 'delayed' then
      promote_one(job)
    end
  end
end

-- `lease`: under which it was lost; with a mark before it where its worker cannot come back for it.
local function reap_one(job, group, lease)
  leave_running(job)
  charge(job, -job.cost)
  job.lost = job.lost + 1
  count(job, 'reaped', 1)
  job.lost_leases = job.lost_leases .. ' ' .. lease
  call('HSET', P .. 'job:' .. job.id, 'lost', job.lost, 'lost_leases', job.lost_leases)
  if job.cancel == 'cancelled' then
    finish(job, 'cancelled', 'message', 'cancelled on request; its worker vanished')
  elseif overdue(job) then
    finish(job, 'expired', 'message', LATE .. 'after its worker vanished')
  elseif job.lost - job.lifted >= TERMS.MAX_LOST then
    local times = job.lost - job.lifted
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
-- jobs each got. Its leases do not all lapse at once: what else it loses within a while joins them.
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
  for worker, found in pairs(groups) do
    local text = string.format('%.6f %d %d', found.first, found.counts[1], found.counts[2])
    call('SET', P .. 'reaped:' .. worker, text, 'PX', TOGETHER_MS)
    call('ZREM', P .. 'apart', worker) -- others may run what it lost
  end
  exonerate()
end

local function dies_of_a_loss(job)
  return job.lost - job.lifted + 1 >= TERMS.MAX_LOST and job.cancel ~= 'cancelled' and not overdue(job)
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
  local lapsed, lost = call('ZRANGEBYSCORE', P .. 'leases', '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, 64), {}
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

local function expire_one(job)
  if job.state == 'running' then -- its worker hears of it on renewal; if it has vanished, reaping ends it
    if not job.cancel or job.cancel == '' then
      call('HSET', P .. 'job:' .. job.id, 'cancel', 'deadline')
    end
    return
  end
  leave_waiting(job)
  finish(job, 'expired', 'message', LATE .. 'while it waited')
end

local function expire_due()
  local due = call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', NOW, 'LIMIT', 0, MOST_EXPIRED)
  more_is_due = more_is_due or #due == MOST_EXPIRED
  for _, id in ipairs(due) do
    call('ZREM', P .. 'deadlines', id)
    local job = load_job(id)
    if job and (job.state == 'queued' or job.state == 'delayed' or job.state == 'running') then
      expire_one(job)
    end
  end
end

local function duties(lease_ms)
  local outage = in_outage(lease_ms)
  promote()
  if not outage then
    reap()
  end
  expire_due()
  if second_turned then
    trim_letters()
  end
end
