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
    if job and job.state == 'delayed' and job.lost > 0 then -- still a suspect, though its last worker survived it
      call('ZADD', P .. 'suspects', NOW, id)
      call('HSET', P .. 'job:' .. id, 'state', 'queued', 'lane', 'suspect')
    elseif job and job.state == 'delayed' then
      enter_stream(job, job.fence > 0 and 'again' or job.priority)
      call('HSET', P .. 'job:' .. id, 'state', 'queued', 'lane', job.lane, 'entry', job.entry)
      wake(job.ref)
    end
  end
end

local function reap_one(job)
  leave_running(job)
  charge(job, -job.cost)
  job.lost = job.lost + 1
  count(job, 'reaped', 1)
  call('HSET', P .. 'job:' .. job.id, 'lost', job.lost)
  if job.cancel == 'cancelled' then
    finish(job, 'cancelled', 'message', 'cancelled on request; its worker vanished')
  elseif overdue(job) then
    finish(job, 'expired', 'message', LATE .. 'after its worker vanished')
  elseif job.lost >= TERMS.MAX_LOST then
    bury(job, 'Poisonous', 'its worker vanished ' .. job.lost .. ' times in a row of ' .. job.attempts .. ' attempts')
  else
    call('ZADD', P .. 'suspects', NOW, job.id)
    counted_window(job, 1)
    call('HSET', P .. 'job:' .. job.id, 'state', 'queued', 'lease', '', 'lane', 'suspect', 'first_token_ms', '')
  end
end

local function reap()
  local lapsed = call('ZRANGEBYSCORE', P .. 'leases', '-inf', NOW, 'LIMIT', 0, 64)
  for _, id in ipairs(lapsed) do
    local job = load_job(id)
    if job and job.state == 'running' then
      reap_one(job)
    else
      call('ZREM', P .. 'leases', id)
    end
  end
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
