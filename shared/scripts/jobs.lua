-- A job's record and its moves. A job that has not ended is in exactly one place: a stream, `suspects`, `delayed` or
-- `leases`. Gauges (waiting, window, running, held) follow from the places, counters from the records; both are summed
-- up here and written once, by conclude(), with what else many jobs of one call can share a command for.

local FIELDS = { 'state', 'lease', 'ref', 'agent', 'client', 'stream', 'attempts', 'lost', 'fence', 'submitted_ms',
  'deadline_ms', 'cancel', 'cost', 'lane', 'entry', 'worker', 'priority', 'settled', 'digest', 'seed', 'started_ms',
  'first_token_ms', 'lifted', 'lost_leases', 'due_ms', 'spared' }

-- A number within reason, or nil.
local function number(text)
  local n = tonumber(text)
  return n and n > -1e15 and n < 1e15 and n or nil
end

-- Names become parts of keys and words of replies.
local function is_name(text)
  return text and #text <= 257 and string.find(text, '^[%w_][%w._@-]*$') ~= nil
end

-- Not as lorapool writes it: the job has failed, and is in no place any more but its stream. Gauges that counted it are
-- put right by fsck.
local function condemn(id)
  local key = P .. 'job:' .. id
  call('HSET', key, 'state', 'failed', 'finished_ms', string.format('%d', NOW), 'lease', '', 'error', 'MalformedEntry',
    'message', 'its record was damaged: not written by lorapool, or changed since')
  call('PEXPIRE', key, TERMS.RESULT_TTL_MS)
  call('UNLINK', P .. 'payload:' .. id)
  for _, place in ipairs({ 'delayed', 'suspects', 'leases', 'deadlines' }) do
    call('ZREM', P .. place, id)
  end
  malformed('job record')
end

local LIVE = { queued = true, running = true, delayed = true }
local ENDED = { succeeded = true, failed = true, cancelled = true, expired = true }

-- Whether a record can be worked with; ... are its whole numbers.
local function sound(id, state, ref, agent, ...)
  local good = (LIVE[state] or ENDED[state]) and is_name(ref) and is_name(agent)
  for i = 1, select('#', ...) do
    local text = select(i, ...)
    good = good and text and #text <= 19 and string.find(text, '^%-?%d+$')
  end
  if not good and not ENDED[state] then
    condemn(id)
  end
  return good
end

local function load_job(id)
  local v = call('HMGET', P .. 'job:' .. id, unpack(FIELDS))
  if not v[1] or not sound(id, v[1], v[3], v[4], v[7], v[8], v[9], v[10], v[13]) then
    return nil
  end
  return { id = id, state = v[1], lease = v[2] or '', ref = v[3], agent = v[4], client = v[5], stream = v[6],
    attempts = tonumber(v[7]), lost = tonumber(v[8]), fence = tonumber(v[9]), submitted = tonumber(v[10]),
    deadline = number(v[11]), cancel = v[12], cost = tonumber(v[13]), lane = v[14] or 'normal', entry = v[15] or '',
    worker = v[16] or '', priority = v[17] or 'normal', settled = v[18], digest = v[19] or '', seed = v[20] or '0',
    started = number(v[21]), first_token = number(v[22]),
    lifted = number(v[23]) or 0, lost_leases = v[24] or '', due = number(v[25]), spared = v[26] }
end

-- Sums

local AT = string.format('%d', NOW) -- as text: a number is printed anew for each command, and slowly
local gauges, counts, charges, touched, entered = {}, {}, {}, {}, {} -- counts: by ref, agent, field

local function add(sums, key, field, n)
  local fields = sums[key]
  if not fields then
    fields = {}
    sums[key] = fields
  end
  fields[field] = (fields[field] or 0) + n
end

local function count(job, field, n)
  if n ~= 0 and job.ref and job.agent then
    local of_ref = counts[job.ref] or {}
    counts[job.ref] = of_ref
    add(of_ref, job.agent, field, n)
  end
end

local function gauge(key, field)
  local pending = gauges[key] and gauges[key][field] or 0
  return (number(call('HGET', P .. key, field)) or 0) + pending
end

local function write_sums(sums, prefix, drop_zero)
  for name, fields in pairs(sums) do
    local key, names, values, zeros = prefix .. name, {}, {}, {}
    for field in pairs(fields) do
      names[#names + 1] = field
    end
    local had = call('HMGET', key, unpack(names))
    for i, field in ipairs(names) do
      local n = (number(had[i]) or 0) + fields[field]
      if n <= 0 and drop_zero then
        zeros[#zeros + 1] = field
      else
        values[#values + 1] = field
        values[#values + 1] = n
      end
    end
    if #values > 0 then
      call('HSET', key, unpack(values))
    end
    if #zeros > 0 then
      call('HDEL', key, unpack(zeros))
    end
  end
end

-- Of a job: since when it could have been claimed or, if that is later, its turn counts.
local function turn_of(id)
  local v = call('HMGET', P .. 'job:' .. id, 'submitted_ms', 'due_ms', 'turn_ms')
  return math.max(number(v[1]) or 0, number(v[2]) or 0, number(v[3]) or 0)
end

-- When the turn of an adapter's next job is.
local function waits_since(ref)
  local _, turn = next_lane(heads_of(ref, 1))
  return turn or NOW
end

local function add_all(key, how, scores)
  if #scores > 0 and how then
    call('ZADD', key, how, unpack(scores))
  elseif #scores > 0 then
    call('ZADD', key, unpack(scores))
  end
end

local function drop_all(key, members)
  if #members > 0 then
    call('ZREM', key, unpack(members))
  end
end

-- Which adapters with jobs are claimable. `heads`: of those just claimed, the next
-- job's turn if that is known, or true.
local function review_ready(refs, waiting, running, adapters, heads)
  local since, earlier, fresh, out = {}, {}, {}, {}
  local function enter(scores, score, ref)
    scores[#scores + 1] = score
    scores[#scores + 1] = ref
  end
  for i, ref in ipairs(refs) do
    local state, cap = adapters[i][1], number(adapters[i][2]) or 0
    if waiting[i] <= 0 or state ~= 'open' and state ~= 'closed' or cap > 0 and running[i] >= cap then
      out[#out + 1] = ref
    elseif heads[ref] then
      enter(since, heads[ref] == true and waits_since(ref) or heads[ref], ref)
    elseif entered[ref] then
      enter(earlier, entered[ref], ref)
    else
      enter(fresh, NOW, ref)
    end
  end
  add_all(P .. 'ready', nil, since)
  add_all(P .. 'ready', 'LT', earlier)
  add_all(P .. 'ready', 'NX', fresh)
  drop_all(P .. 'ready', out)
end

-- Which take part in `served`. Who enters is lifted to the least of those present: idling earns no credit.
local function review_served(refs, waiting, running, adapters)
  local had, ranks, out = call('ZMSCORE', P .. 'served', unpack(refs)), {}, {}
  local least = call('ZRANGE', P .. 'served', 0, 0, 'WITHSCORES')[2]
  for i, ref in ipairs(refs) do
    local weight, served = number(adapters[i][3]) or 1, number(had[i])
    local charge = (charges[ref] or 0) / (weight > 1e-9 and weight or 1)
    if waiting[i] + running[i] > 0 then
      if not served or charge ~= 0 then
        served = served or math.max(number(adapters[i][4]) or 0, number(least) or 0)
        ranks[#ranks + 1] = math.max(0, served + charge)
        ranks[#ranks + 1] = ref
      end
    elseif served then
      out[#out + 1] = ref
      call('HSET', P .. 'adapter:' .. ref, 'served', math.max(0, served + charge))
    end
  end
  add_all(P .. 'served', nil, ranks)
  drop_all(P .. 'served', out)
end

local function gauges_of(key, refs)
  local found = call('HMGET', P .. key, unpack(refs))
  for i = 1, #refs do
    found[i] = number(found[i]) or 0
  end
  return found
end

-- What follows from adapters' waiting and running jobs.
local function review(refs, heads)
  if #refs == 0 then
    return
  end
  local waiting, running, adapters = gauges_of('waiting', refs), gauges_of('running', refs), {}
  for i, ref in ipairs(refs) do
    adapters[i] = call('HMGET', P .. 'adapter:' .. ref, 'state', 'max_inflight', 'weight', 'served')
  end
  review_ready(refs, waiting, running, adapters, heads or {})
  review_served(refs, waiting, running, adapters)
end

local function write_counts()
  local by_ref, by_agent = {}, {}
  for ref, agents in pairs(counts) do
    for agent, fields in pairs(agents) do
      for field, n in pairs(fields) do
        add(by_ref, ref, field, n)
        add(by_agent, agent, field, n)
      end
    end
  end
  write_sums(by_ref, P .. 'stats:', false)
  write_sums(by_agent, P .. 'agent:', false)
  for agent, fields in pairs(by_agent) do
    if fields.submitted then
      call('PEXPIRE', P .. 'agent:' .. agent, TERMS.AGENT_TTL_MS)
    end
  end
end

local unleased, answered, notices = {}, {}, {} -- job ids out of `leases`, payload keys, notices by client

-- Whether a client leaves its inbox unread: what is written since it last read is counted in bytes.
local function is_unread(client, notice)
  local key, bytes = P .. 'unread:' .. client, 0
  for _, text in ipairs(notice) do
    bytes = bytes + #text
  end
  local sum = call('INCRBY', key, bytes)
  if sum == bytes then
    call('PEXPIRE', key, TERMS.INBOX_TTL_MS)
  end
  return sum > TERMS.INBOX_BYTES
end

-- To one that nobody reads go plain states, and few entries stay.
local function write_notices()
  for client, notice in pairs(notices) do
    local key, most = P .. 'inbox:' .. client, TERMS.INBOX_MAX
    if is_unread(client, notice) then
      most = TERMS.INBOX_UNREAD
      for i = 2, #notice, 2 do
        notice[i] = string.match(notice[i], '^%l+')
      end
    end
    call('XADD', key, 'MAXLEN', '~', most, '*', unpack(notice))
    call('PEXPIRE', key, TERMS.INBOX_TTL_MS)
  end
end

-- Write what was summed up. `heads` as in review_ready.
local function conclude(heads)
  if #unleased > 0 then
    call('ZREM', P .. 'leases', unpack(unleased))
  end
  if #answered > 0 then
    call('UNLINK', unpack(answered))
  end
  write_notices()
  write_sums(gauges, P, true)
  write_counts()
  local refs = {}
  for ref in pairs(touched) do
    refs[#refs + 1] = ref
  end
  review(refs, heads)
  gauges, counts, charges, touched, entered = {}, {}, {}, {}, {}
  unleased, answered, notices = {}, {}, {}
end

local function charge(job, tokens)
  charges[job.ref] = (charges[job.ref] or 0) + tokens
end

-- Places

local function counted_waiting(job, n)
  add(gauges, 'waiting', job.ref, n)
  add(gauges, 'waiting', '*', n)
  touched[job.ref] = true
end

local function counted_window(job, n)
  add(gauges, 'window:' .. job.ref, job.agent, n)
end

-- ... are more fields of the entry.
local function enter_stream(job, lane, ...)
  local turn = job.turn or NOW
  job.lane = lane
  job.entry = call('XADD', stream_of(job.ref, lane), '*', 'job', job.id, 'turn', turn, ...)
  entered[job.ref] = math.min(entered[job.ref] or math.huge, turn)
  counted_waiting(job, 1)
end

local function leave_stream(job)
  local key = stream_of(job.ref, job.lane)
  if string.find(job.entry, '^%d+%-%d+$') then
    call('XDEL', key, job.entry)
  end
  if call('XLEN', key) == 0 then
    call('DEL', key)
  end
  counted_waiting(job, -1)
end

local function leave_running(job)
  unleased[#unleased + 1] = job.id
  add(gauges, 'running', job.ref, -1)
  add(gauges, 'held', job.worker, -1)
  touched[job.ref] = true
end

-- Out of wherever it waits (queued or delayed).
local function leave_waiting(job)
  if job.state == 'delayed' then
    call('ZREM', P .. 'delayed', job.id)
  elseif job.lane == 'suspect' then
    call('ZREM', P .. 'suspects', job.id)
  else
    leave_stream(job)
  end
  counted_window(job, -1)
end

-- To the suspects (suspects.lua). Who has the same group runs again together: a moment, in ms and fractions.
local function enter_suspects(job, group, ...)
  job.lane = 'suspect'
  call('ZADD', P .. 'suspects', group, job.id)
  counted_window(job, 1)
  call('HSET', P .. 'job:' .. job.id, 'state', 'queued', 'lease', '', 'lane', 'suspect', 'first_token_ms', '', ...)
end

-- Back to waiting, first in line; unburnt or retried, never a suspect.
local function enter_again(job, ...)
  job.turn = math.max(job.submitted, job.due or 0)
  enter_stream(job, 'again')
  counted_window(job, 1)
  call('HSET', P .. 'job:' .. job.id, 'state', 'queued', 'lease', '', 'lane', job.lane, 'entry', job.entry,
    'first_token_ms', '', ...)
end

-- Ends

-- To the client's inbox, where one entry tells of all its jobs that this call ends: their ids, and of each its state,
-- or a short answer as a whole (job.answer), which saves reading the record.
local function notify(job, state)
  if job.client and job.client ~= '' then
    local notice = notices[job.client] or {}
    notices[job.client] = notice
    notice[#notice + 1] = job.id
    notice[#notice + 1] = job.answer or state
  end
  if job.stream == '1' then
    local key = P .. 'tokens:' .. job.id
    call('XADD', key, '*', 'kind', 'end', 'attempt', job.attempts, 'state', state)
    call('PEXPIRE', key, TERMS.TOKENS_TTL_MS)
  end
end

local function count_end(job, state)
  count(job, state, 1)
  count(job, 'total_ms', math.max(0, NOW - job.submitted))
  if job.started then
    count(job, 'queued_ms', math.max(0, job.started - job.submitted))
  end
  if job.first_token then
    count(job, 'first_token_ms', math.max(0, job.first_token - job.submitted))
  end
end

-- The one way into a terminal state. The caller has taken the job out of its place; ... are more fields of the record.
local function finish(job, state, ...)
  local key = P .. 'job:' .. job.id
  call('HSET', key, 'state', state, 'finished_ms', AT, 'lease', '', ...)
  call('PEXPIRE', key, TERMS.RESULT_TTL_MS)
  answered[#answered + 1] = P .. 'payload:' .. job.id
  if job.deadline then
    call('ZREM', P .. 'deadlines', job.id)
  end
  job.state = state
  notify(job, state)
  count_end(job, state)
end

-- Failed for good with its request kept, so that an operator may redrive it.
local function bury(job, reason, message, ...)
  local entry = call('XADD', P .. 'dead', '*', 'job', job.id, 'ref', job.ref, 'agent', job.agent, 'reason', reason,
    'message', string.sub(message, 1, 500), 'attempts', job.attempts, 'lost', job.lost, 'died_ms', NOW)
  local key, payload = P .. 'job:' .. job.id, P .. 'payload:' .. job.id
  call('HSET', key, 'state', 'failed', 'finished_ms', NOW, 'lease', '', 'error', reason, 'message', message,
    'dead', entry, ...)
  call('PEXPIRE', key, TERMS.DEAD_TTL_MS)
  call('PEXPIRE', payload, TERMS.DEAD_TTL_MS)
  if job.deadline then
    call('ZREM', P .. 'deadlines', job.id)
  end
  job.state = 'failed'
  notify(job, 'failed')
  count_end(job, 'failed')
  count(job, 'dead', 1)
end

local function overdue(job)
  return job.deadline and job.deadline <= NOW
end

local LATE = 'its deadline passed '

-- The latest of the adapter's last workers that is idle; not the one named.
local function idle_holder(ref, except)
  local names, keys = {}, {}
  for name in string.gmatch(call('HGET', P .. 'last_worker', ref) or '', '%S+') do
    names[#names + 1], keys[#keys + 1] = name, P .. 'idle:' .. name
  end
  local idle = #keys > 0 and call('MGET', unpack(keys)) or {}
  for i, name in ipairs(names) do
    if idle[i] and name ~= except then
      return name
    end
  end
end

-- Who sleeps on what: a worker that likely holds the adapter, if one is idle and answers within 20 ms, else any.
local function wake(ref, except)
  local worker = idle_holder(ref, except)
  if worker then
    local key = P .. 'wake:' .. worker
    if call('ZADD', key, 'NX', NOW, '1') == 1 then
      call('PEXPIRE', key, 2000)
      return
    end
    if math.abs(NOW - (number(call('ZSCORE', key, '1')) or 0)) < 20 then
      return
    end
  end
  if call('ZADD', P .. 'wake', 'NX', NOW, '1') == 1 then
    call('PEXPIRE', P .. 'wake', 60000)
  end
end

-- Take the loss under that lease back from a job: `lost` counts it on, `lifted` against it. What ended stays as it is.
local function take_back(job, lease)
  local left, found = {}, false
  for known in string.gmatch(job.lost_leases, '%S+') do
    if known == lease then
      found = true
    else
      left[#left + 1] = known
    end
  end
  if not found or ENDED[job.state] then
    return
  end
  job.lifted, job.lost_leases = job.lifted + 1, table.concat(left, ' ')
  count(job, 'lifted', 1)
  call('HSET', P .. 'job:' .. job.id, 'lifted', job.lifted, 'lost_leases', job.lost_leases)
  if job.state == 'queued' and job.lane == 'suspect' and job.lifted >= job.lost then
    leave_waiting(job)
    enter_again(job)
    wake(job.ref)
  end
end

-- A worker that comes back with a lease that was reaped was slow, not gone: that is no loss.
local function lift(id, lease)
  local job = load_job(id)
  if job then
    take_back(job, lease)
  end
end
