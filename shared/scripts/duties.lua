-- What any worker does for the whole partition when it comes by: promote, reap, expire; bounded a call.

local second_turned = false

-- True while leases must not be reaped: nobody was there to renew or reap (the server was down, or all workers), so
-- every owner first gets one lease's time to come back.
local function in_outage(lease_ms)
  local key = P .. 'reaper'
  local text = call('GET', key) or '0 0 0'
  local last, calm, lease = string.match(text, '^(%d+) (%d+) (%d+)$')
  last, calm, lease = tonumber(last) or 0, tonumber(calm) or 0, lease_ms or tonumber(lease) or 0
  if lease == 0 then
    lease = TERMS.LEASE_MS
  end
  if NOW - last > math.max(lease / 2, 3000) and call('EXISTS', P .. 'leases') == 1 then
    calm = NOW + lease
  end
  call('SET', key, string.format('%d %d %d', NOW, calm, lease), 'PX', 3600000)
  second_turned = math.floor(last / 1000) ~= math.floor(NOW / 1000)
  return NOW < calm
end

local function promote()
  local due = call('ZRANGEBYSCORE', P .. 'delayed', '-inf', NOW, 'LIMIT', 0, 100)
  for _, id in ipairs(due) do
    call('ZREM', P .. 'delayed', id)
    local job = load_job(id)
    if job and job.state == 'delayed' and job.lost > job.lifted then -- a suspect, though its last worker survived it
      counted_window(job, -1)
      enter_suspects(job, AT)
    elseif job and job.state == 'delayed' then
      enter_stream(job, job.fence > 0 and 'again' or job.priority)
      call('HSET', P .. 'job:' .. id, 'state', 'queued', 'lane', job.lane, 'entry', job.entry)
      wake(job.ref)
    end
  end
end

-- `lease`: under which it was lost to a worker that may come back, or ''.
local function reap_one(job, group, lease)
  leave_running(job)
  charge(job, -job.cost)
  job.lost = job.lost + 1
  count(job, 'reaped', 1)
  local leases = lease == '' and job.lost_leases or job.lost_leases .. ' ' .. lease
  call('HSET', P .. 'job:' .. job.id, 'lost', job.lost, 'lost_leases', leases)
  if job.cancel == 'cancelled' then
    finish(job, 'cancelled', 'message', 'cancelled on request; its worker vanished')
  elseif overdue(job) then
    finish(job, 'expired', 'message', LATE .. 'after its worker vanished')
  elseif job.lost - job.lifted >= TERMS.MAX_LOST then
    local times = job.lost - job.lifted
    bury(job, 'Poisonous', 'its worker vanished ' .. times .. ' times in a row of ' .. job.attempts .. ' attempts')
  else
    enter_suspects(job, group)
  end
end

-- Lost together; what each worker lost becomes two groups. `returns`: their worker may come back.
local function reap_all(jobs, returns)
  local of, seen, first, groups = {}, {}, {}, 0
  for _, job in ipairs(jobs) do
    of[job.worker] = (of[job.worker] or 0) + 1
  end
  for _, job in ipairs(jobs) do
    local worker = job.worker
    if not seen[worker] then
      seen[worker], first[worker], groups = 0, groups, groups + 2
    end
    seen[worker] = seen[worker] + 1
    local group = first[worker] + (seen[worker] > math.ceil(of[worker] / 2) and 1 or 0)
    reap_one(job, string.format('%.6f', NOW + group / 64), returns and job.lease or '')
  end
end

local function reap()
  local lapsed, lost = call('ZRANGEBYSCORE', P .. 'leases', '-inf', NOW, 'LIMIT', 0, 64), {}
  for _, id in ipairs(lapsed) do
    local job = load_job(id)
    if job and job.state == 'running' then
      lost[#lost + 1] = job
    else
      call('ZREM', P .. 'leases', id)
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
  local due = call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', NOW, 'LIMIT', 0, 64)
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
