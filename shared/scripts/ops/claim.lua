-- uses: counters deadlines housekeeping endings isolation lanes presence reach record unit_of_work view wake
-- Take a micro-batch under one lease, adapter by adapter in the order preferred; tidy up first, look around after.
-- KEYS[1] partition prefix
-- ARGV CLAIM, resident..., preferred ref...
--      a resident with a minus before it is an adapter that this worker cannot reach; none is preferred by a worker
--      that holds nothing, and asks for suspects alone
-- returns {view, HEAD as one text, payload, HEAD, payload, ...}
-- The same lease again returns what it took the first time, as far as it is still held.
local worker, lease = ARGV[CLAIM.worker], ARGV[CLAIM.lease]
local n, max_adapters = tonumber(ARGV[CLAIM.n]), tonumber(ARGV[CLAIM.max_adapters])
local per_adapter, lease_ms = tonumber(ARGV[CLAIM.per_adapter]), tonumber(ARGV[CLAIM.lease_ms])
local most_suspects = tonumber(ARGV[CLAIM.most_suspects])
local last_resident = CLAIM.WIDTH + tonumber(ARGV[CLAIM.residents])
local residents = residents_of(CLAIM.WIDTH + 1, last_resident)
local heads, payloads, taken, claimed = {}, {}, {}, {} -- claimed: by ref, the next job's turn, or true
local MOST_TIDIED, tidied = 256, 0 -- entries that were taken and could not begin

-- As load_job, but only what a claim needs, and what is not reckoned with as text.
local function load_queued(id)
  local v = call('HMGET', P .. 'job:' .. id, QUEUED.FIELDS)
  local state, ref, agent, attempts, lost = v[QUEUED.state], v[QUEUED.ref], v[QUEUED.agent], v[QUEUED.attempts], v[QUEUED.lost]
  local fence, submitted, cost, seed = v[QUEUED.fence], v[QUEUED.submitted_ms], v[QUEUED.cost], v[QUEUED.seed]
  if not state or not sound(id, state, ref, agent, attempts, cost, submitted, lost, fence, seed) or state ~= 'queued' then
    return nil
  end
  return { id = id, ref = ref, agent = agent, attempts = attempts, cost = cost, submitted = submitted,
    stream = v[QUEUED.stream], deadline = number(v[QUEUED.deadline_ms]), lost = lost, fence = fence,
    digest = v[QUEUED.digest] or '', seed = seed }
end

local function hand_over(job)
  local digest = string.find(job.digest, '^%S+$') and job.digest or '-'
  heads[#heads + 1] = table.concat(HEAD { id = job.id, ref = job.ref, digest = digest, agent = job.agent,
    attempt = job.attempts, lost = job.lost, fence = job.fence, seed = job.seed, submitted_ms = job.submitted,
    claimed_ms = job.started, deadline_ms = job.deadline or '-' }, ' ')
  payloads[#payloads + 1] = P .. 'payload:' .. job.id
end

local function begin_attempt(job)
  job.attempts, job.fence = string.format('%d', job.attempts + 1), string.format('%d', job.fence + 1)
  job.started = AT
  local key = P .. 'job:' .. job.id
  call('HSET', key, 'state', 'running', 'lease', lease, 'worker', worker, 'attempts', job.attempts,
    'fence', job.fence, 'started_ms', AT)
  if job.stream == '1' and job.fence ~= '1' then
    call('HSET', key, 'emitted', 0)
    call('XADD', P .. 'tokens:' .. job.id, '*', 'kind', 'restart', 'attempt', job.attempts)
    call('PEXPIRE', P .. 'tokens:' .. job.id, TERMS.RESULT_TTL_MS)
  end
  counted_window(job, -1)
  add(gauges, 'running', job.ref, 1)
  add(gauges, 'held', worker, 1)
  touched[job.ref], claimed[job.ref] = true, claimed[job.ref] or true
  charge(job, job.cost)
  count(job, 'claimed', 1)
  taken[#taken + 1] = job.id
  hand_over(job)
end

-- One entry of a stream that was read: begun, or settled at once if it may not begin.
local function begin_entry(id, ref)
  local job = is_name(id) and load_queued(id)
  if not job then
    add(gauges, 'waiting', ref, -1)
    add(gauges, 'waiting', '*', -1)
    touched[ref] = true
    return
  end
  counted_waiting(job, -1)
  if overdue(job) then
    counted_window(job, -1)
    finish(load_job(id), 'expired', 'message', LATE .. 'while it waited')
    return
  end
  begin_attempt(job)
end

-- Retries that failed here are left to others for a moment, if there are any.
local function leave_to_others(lane)
  local rest = {}
  for _, entry in ipairs(lane.entries) do
    local fields = entry[2]
    local left_us = fields[5] == 'left' and fields[6] == worker and NOW - turn_in(entry) < TERMS.ELSEWHERE_MS
    if not left_us or workers_here() < 2 then
      rest[#rest + 1] = entry
    end
  end
  lane.whole = lane.whole and #rest == #lane.entries
  lane.entries = rest
end

local function read_lanes(ref, want)
  local lanes = heads_of(ref, want + 1)
  for _, lane in ipairs(lanes) do
    lane.ids = {}
    if lane.name == 'retry' then
      leave_to_others(lane)
      lanes.retry = lane
    end
  end
  return lanes
end

-- The next entry: of retries, up to half; of the others by turn; then of retries.
local function pick(lanes, picked, want)
  local retry = lanes.retry
  local has_retry = retry and retry.entries[retry.at]
  local lane = has_retry and #picked < math.floor(want / 2) and retry
    or next_lane(lanes, want > 1 and 'retry' or nil) or has_retry and retry
  if not lane then
    return false
  end
  local entry = lane.entries[lane.at]
  lane.at = lane.at + 1
  lane.ids[#lane.ids + 1] = entry[1]
  picked[#picked + 1] = job_in(entry)
  return true
end

local function take_out(ref, lanes)
  for _, lane in ipairs(lanes) do
    local key = stream_of(ref, lane.name)
    if lane.whole and lane.at > #lane.entries then
      call('DEL', key)
    elseif #lane.ids > 0 then
      call('XDEL', key, unpack(lane.ids))
    end
  end
end

-- Jobs of one adapter; what may not begin makes room for others, within a bound.
local function take_adapter(ref, want)
  local cap = number(call('HGET', P .. 'adapter:' .. ref, 'max_inflight')) or 0
  if cap > 0 then
    want = math.min(want, cap - gauge('running', ref))
  end
  local full = #taken + want
  while #taken < full do
    local ask, picked, before = full - #taken, {}, #taken
    local lanes = read_lanes(ref, ask)
    while #picked < ask and pick(lanes, picked, ask) do end
    take_out(ref, lanes)
    for _, id in ipairs(picked) do
      begin_entry(id, ref)
    end
    local _, turn = next_lane(lanes)
    claimed[ref] = claimed[ref] and (turn or true)
    tidied = tidied + #picked - (#taken - before)
    if #picked < ask or tidied >= MOST_TIDIED then
      break
    end
  end
  more_is_due = more_is_due or tidied >= MOST_TIDIED
end

-- Claimable, and nothing there: entries were lost, or somebody else wrote `ready`. Else all workers would try for ever.
local function see_empty(ref)
  if call('EXISTS', streams_of(ref)) > 0 then
    return
  end
  local phantoms = gauge('waiting', ref)
  add(gauges, 'waiting', ref, -phantoms)
  add(gauges, 'waiting', '*', -phantoms)
  touched[ref] = true
end

local function take_preferred()
  local preferred, adapters = {}, 0
  for i = last_resident + 1, #ARGV do
    preferred[#preferred + 1] = ARGV[i]
  end
  local ready = #preferred > 0 and call('ZMSCORE', P .. 'ready', unpack(preferred))
  for i, ref in ipairs(preferred) do
    local before = #taken
    if before >= n or adapters >= max_adapters then
      return
    end
    if ready[i] then
      take_adapter(ref, math.min(n - before, per_adapter))
      adapters = adapters + (#taken > before and 1 or 0)
      if #taken == before then
        see_empty(ref)
      end
    end
  end
end

-- Suspects, apart from all others. True where this worker claims nothing else now. A worker knows what it holds; what
-- is counted here may be more, where somebody else wrote a record.
local function take_apart()
  local apart, suspect, group = goes_apart(worker, true)
  local holds_nothing = #ARGV <= last_resident or gauge('held', worker) <= 0
  if not suspect or not holds_nothing then
    return apart
  end
  local ids = {}
  for _, job in ipairs(group_of(suspect, group, most_suspects)) do
    if overdue(job) then
      expire_waiting(job)
    elseif takes_more(job.ref) then
      call('ZREM', P .. 'suspects', job.id)
      begin_attempt(job)
      ids[#ids + 1] = job.id
    end
  end
  call('SET', P .. 'alone:' .. worker, table.concat(ids, ' '), 'PX', TTL.alone)
  return true
end

local function repeated()
  local text = call('GET', P .. 'claim:' .. worker)
  if not text or string.sub(text, 1, #lease + 1) ~= lease .. ' ' then
    return false
  end
  for id in string.gmatch(string.sub(text, #lease + 2), '%S+') do
    local job = load_job(id)
    if job and job.state == 'running' and job.lease == lease then
      hand_over(job)
    end
  end
  return true
end

-- Who ran an adapter last, the latest first: workers that likely still hold it.
local function with_us(others)
  local names = { worker }
  for name in string.gmatch(others or '', '%S+') do
    if name ~= worker and #names < TERMS.LAST_WORKERS then
      names[#names + 1] = name
    end
  end
  return table.concat(names, ' ')
end

local function record_claim()
  local due = NOW + lease_ms
  local leases, homes, refs = {}, {}, {}
  for i, id in ipairs(taken) do
    leases[2 * i - 1], leases[2 * i] = due, id
  end
  for ref in pairs(claimed) do
    refs[#refs + 1] = ref
    call('HSET', P .. 'adapter:' .. ref, 'claimed_ms', AT)
  end
  for i, others in ipairs(call('HMGET', P .. 'last_worker', unpack(refs))) do
    homes[2 * i - 1], homes[2 * i] = refs[i], with_us(others)
  end
  call('ZADD', P .. 'leases', unpack(leases))
  call('HSET', P .. 'last_worker', unpack(homes))
  call('PEXPIRE', P .. 'last_worker', TTL.last_worker)
  call('SET', P .. 'claim:' .. worker, lease .. ' ' .. table.concat(taken, ' '), 'PX', TTL.claim)
end

call('DEL', P .. 'idle:' .. worker)
housekeeping(lease_ms)
note_presence(worker)
conclude()
local apart
if repeated() then
  apart = is_apart(worker)
else
  apart = take_apart()
  if not apart then
    take_preferred()
  end
  if #taken > 0 then
    record_claim()
    conclude(claimed)
    if call('EXISTS', P .. 'ready') == 1 then
      wake_anyone()
    end
  else
    conclude()
  end
end
local reply = { view(residents, apart, apart) }
local requests = #payloads > 0 and call('MGET', unpack(payloads))
for i, head in ipairs(heads) do
  reply[2 * i] = head
  reply[2 * i + 1] = requests[i] or ''
end
return reply
