-- uses: counters endings lanes ready record waiting wake
-- What must hold of a key, of a set, of an adapter; each check puts right what it finds, and says so in `report`.
local report = { '' }
local MOST = 10000 -- entries of one adapter, leases, delayed jobs: beyond, an exact sum would block the server too long

local function damaged(damage, subject)
  report[#report + 1] = damage
  report[#report + 1] = subject
end

-- Jobs

local function in_place(job)
  if job.state == 'delayed' then
    return call('ZSCORE', P .. 'delayed', job.id)
  elseif job.state == 'running' then
    return call('ZSCORE', P .. 'leases', job.id)
  elseif job.lane == 'suspect' then
    return call('ZSCORE', P .. 'suspects', job.id)
  end
  local entry = job.entry and string.find(job.entry, '^%d+%-%d+$')
    and call('XRANGE', stream_of(job.ref, job.lane), job.entry, job.entry)[1]
  return entry and entry[2][2] == job.id
end

-- Gauges are left alone here: they count the job already, or are put right with its adapter's.
local function put_in_place(job)
  if job.state == 'delayed' then
    call('ZADD', P .. 'delayed', number(call('HGET', P .. 'job:' .. job.id, 'due_ms')) or NOW, job.id)
    damaged('delayed_job_without_due', job.id)
  elseif job.state == 'running' then -- a live owner renews it, a dead one's is reaped
    call('ZADD', P .. 'leases', NOW + TERMS.LEASE_MS, job.id)
    damaged('running_job_without_lease', job.id)
  elseif job.lane == 'suspect' then
    call('ZADD', P .. 'suspects', NOW, job.id)
    damaged('suspect_without_place', job.id)
  else
    job.entry = call('XADD', stream_of(job.ref, job.lane), '*', 'job', job.id, 'turn', turn_of(job.id))
    call('HSET', P .. 'job:' .. job.id, 'entry', job.entry)
    damaged('queued_job_without_entry', job.id)
  end
end

local function check_waiting(job)
  local key = P .. 'job:' .. job.id
  if not in_place(job) then
    put_in_place(job)
  end
  if call('PTTL', key) >= 0 then
    call('PERSIST', key)
    damaged('live_job_with_ttl', job.id)
  end
  local watched = not job.deadline or (job.state == 'running' and overdue(job))
  if not watched and not call('ZSCORE', P .. 'deadlines', job.id) then
    call('ZADD', P .. 'deadlines', job.deadline, job.id)
    damaged('deadline_unwatched', job.id)
  end
  if job.state ~= 'running' and call('EXISTS', P .. 'payload:' .. job.id) == 0 then
    leave_waiting(job)
    bury(job, 'PayloadMissing', 'its request was lost from the server before it ran; submit it again')
    damaged('payload_missing', job.id)
  end
end

local function check_ended(job)
  local key, payload = P .. 'job:' .. job.id, P .. 'payload:' .. job.id
  local dead = call('HGET', key, 'dead')
  local ttl = dead and TERMS.DEAD_TTL_MS or TERMS.RESULT_TTL_MS
  if call('PTTL', key) == -1 then
    call('PEXPIRE', key, ttl)
    damaged('ended_job_without_ttl', job.id)
  end
  if not dead and call('EXISTS', payload) == 1 then
    call('UNLINK', payload)
    damaged('payload_of_ended_job', job.id)
  elseif dead and call('PTTL', payload) == -1 then
    call('PEXPIRE', payload, ttl)
    damaged('payload_without_ttl', job.id)
  end
end

local function check_job(id)
  local job = load_job(id)
  if not job then
    return
  end
  if job.lane == false or job.lane == '' then
    job.lane = job.priority
  end
  if ENDED[job.state] then
    check_ended(job)
  else
    check_waiting(job)
  end
end

-- Keys

local TTLS = { agent = TERMS.AGENT_TTL_MS, unread = TERMS.INBOX_TTL_MS, tokens = TERMS.TOKENS_TTL_MS,
  inbox = TERMS.INBOX_TTL_MS, TTL.ALL }

local function check_key(name)
  local kind, id = string.match(name, '^(%l[%l_]*):?(.*)$')
  if kind == 'job' then
    check_job(id)
  elseif kind == 'payload' and call('EXISTS', P .. 'job:' .. id) == 0 and call('PTTL', P .. name) == -1 then
    call('UNLINK', P .. name)
    damaged('payload_without_job', id)
  elseif TTLS[kind] and call('PTTL', P .. name) == -1 then
    call('PEXPIRE', P .. name, TTLS[kind])
    damaged('key_without_ttl', name)
  end
end

-- Sets: members that do not belong

local function belongs(set, job)
  if not job or ENDED[job.state] then
    return false
  elseif set == 'deadlines' then
    return job.deadline
  elseif set == 'suspects' then
    return job.state == 'queued' and job.lane == 'suspect'
  end
  return job.state == 'delayed'
end

local function check_set(set, position)
  local cursor, members = unpack(call('ZSCAN', P .. set, position, 'COUNT', 100))
  for i = 1, #members, 2 do
    local id = members[i]
    if not belongs(set, load_job(id)) then
      call('ZREM', P .. set, id)
      damaged('stray_in_' .. set, id)
    end
  end
  return tostring(cursor)
end

-- Gauges

-- Make a hash of gauges hold exactly these; returns whether it did not.
local function set_gauges(key, expected)
  local had, wrong = call('HGETALL', key), {}
  local seen = {}
  for i = 1, #had, 2 do
    local field = had[i]
    seen[field] = true
    if field ~= '*' and (not expected[field] or number(had[i + 1]) ~= expected[field]) then
      wrong[#wrong + 1] = field
    end
  end
  for field in pairs(expected) do
    if not seen[field] then
      wrong[#wrong + 1] = field
    end
  end
  for _, field in ipairs(wrong) do
    if expected[field] then
      call('HSET', key, field, expected[field])
    else
      call('HDEL', key, field)
    end
  end
  return wrong
end

local function check_leases()
  local running, held = {}, {}
  if call('ZCARD', P .. 'leases') > MOST then
    return
  end
  for _, id in ipairs(call('ZRANGE', P .. 'leases', 0, -1)) do
    local job = load_job(id)
    if job and job.state == 'running' then
      running[job.ref] = (running[job.ref] or 0) + 1
      held[job.worker] = (held[job.worker] or 0) + 1
    else
      call('ZREM', P .. 'leases', id)
      damaged('lease_without_running_job', id)
    end
  end
  for _, ref in ipairs(set_gauges(P .. 'running', running)) do
    damaged('running_gauge', ref)
    touched[ref] = true
  end
  for _, worker in ipairs(set_gauges(P .. 'held', held)) do
    damaged('held_gauge', worker)
  end
end

-- Adapters

local function check_entry(key, ref, lane, entry, window)
  local id = job_in(entry)
  local job = id and load_job(id)
  if not job then
    damaged('entry_without_job', id or entry[1])
  elseif job.state ~= 'queued' or job.entry ~= entry[1] or job.lane ~= lane or job.ref ~= ref then
    damaged('stray_entry', id)
  else
    window[job.agent] = (window[job.agent] or 0) + 1
    return 1
  end
  call('XDEL', key, entry[1])
  return 0
end

local function count_lane(ref, lane, window)
  local key, from, waiting = stream_of(ref, lane), '-', 0
  repeat
    local entries = call('XRANGE', key, from, '+', 'COUNT', 500)
    for _, entry in ipairs(entries) do
      waiting = waiting + check_entry(key, ref, lane, entry, window)
      from = '(' .. entry[1]
    end
  until #entries < 500
  if call('XLEN', key) == 0 then
    call('DEL', key)
  end
  return waiting
end

local function count_set(ref, set, window)
  for _, id in ipairs(call('ZRANGE', P .. set, 0, -1)) do
    local its_ref, agent = unpack(call('HMGET', P .. 'job:' .. id, 'ref', 'agent'))
    if its_ref == ref then
      window[agent] = (window[agent] or 0) + 1
    end
  end
end

local function size_of(ref)
  local n = call('ZCARD', P .. 'delayed') + call('ZCARD', P .. 'suspects')
  for _, lane in ipairs(LANES) do
    n = n + call('XLEN', stream_of(ref, lane))
  end
  return n
end

-- Make the gauge of waiting jobs hold exactly this; returns whether it did not, and what it counted.
local function set_waiting(field, waiting)
  local text = call('HGET', P .. 'waiting', field)
  local had = number(text)
  local wrong = (had or 0) ~= waiting or text and not had
  if wrong and waiting > 0 then
    call('HSET', P .. 'waiting', field, waiting)
  elseif wrong then
    call('HDEL', P .. 'waiting', field)
  end
  return wrong, had or 0
end

local function check_gauges(ref)
  local window, waiting = {}, 0
  for _, lane in ipairs(LANES) do
    waiting = waiting + count_lane(ref, lane, window)
  end
  count_set(ref, 'delayed', window)
  count_set(ref, 'suspects', window)
  local wrong, had = set_waiting(ref, waiting)
  if wrong then
    damaged('waiting_gauge', ref)
    add(gauges, 'waiting', '*', waiting - had)
  end
  for _, agent in ipairs(set_gauges(P .. 'window:' .. ref, window)) do
    damaged('window_gauge', ref .. ' ' .. agent)
  end
end

local function check_ready(ref)
  local ready, served = call('ZSCORE', P .. 'ready', ref), call('ZSCORE', P .. 'served', ref)
  review({ ref })
  local ready_now = call('ZSCORE', P .. 'ready', ref)
  if ready_now and not ready then
    damaged('backlog_not_ready', ref)
    wake(ref)
  elseif ready and not ready_now then
    damaged('ready_without_backlog', ref)
  end
  if (call('ZSCORE', P .. 'served', ref) and true) ~= (served and true) then
    damaged('served_membership', ref)
  end
end

local function check_adapter(ref)
  if size_of(ref) <= MOST then
    check_gauges(ref)
    write_sums(gauges, P, true)
    gauges = {}
  end
  check_ready(ref)
end

-- What adapters have together, and members of `ready` and `served` that are no adapter's.
local function check_sums()
  local had, sum = call('HGETALL', P .. 'waiting'), 0
  for i = 1, #had, 2 do
    if had[i] ~= '*' then
      if call('EXISTS', P .. 'adapter:' .. had[i]) == 0 then
        check_adapter(had[i])
      end
      sum = sum + (number(call('HGET', P .. 'waiting', had[i])) or 0)
    end
  end
  if set_waiting('*', sum) then
    damaged('waiting_gauge', '*')
  end
  for _, set in ipairs({ 'ready', 'served' }) do
    for _, ref in ipairs(call('ZRANGE', P .. set, 0, MOST)) do
      if call('EXISTS', P .. 'adapter:' .. ref) == 0 then
        call('ZREM', P .. set, ref)
        damaged('stray_in_' .. set, ref)
      end
    end
  end
end
