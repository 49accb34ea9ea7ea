-- uses: counters lanes quotas record unit_of_work wake
-- Whether an adapter takes a job, and taking it: what enqueue and redrive share.
local adapters = {}

local function adapter_of(ref)
  local a = adapters[ref]
  if not a then
    local key = P .. 'adapter:' .. ref
    local state, digest, max_depth, window = unpack(call('HMGET', key, 'state', 'digest', 'max_depth', 'agent_window'))
    if not state and ref == REF.BASE then
      call('HSET', key, 'state', 'open', 'digest', '')
      state, digest = 'open', ''
    end
    a = { state = state, digest = digest, max_depth = number(max_depth) or TERMS.MAX_DEPTH,
      agent_window = number(window) or TERMS.AGENT_WINDOW }
    adapters[ref] = a
  end
  return a
end

-- The limit on all adapters together stands in the record of `*`.
local pool_depth

local function pool_limit()
  pool_depth = pool_depth or number(call('HGET', P .. 'adapter:*', 'max_depth')) or math.huge
  return pool_depth
end

local function full(scope, depth, limit, ref)
  -- How long the next job has waited: about how often room appears.
  local since = tonumber(call('ZSCORE', P .. 'ready', ref)) or NOW
  local retry = math.max(100, math.min(5000, NOW - since))
  return 'full ' .. table.concat(FULL { scope = scope, depth = string.format('%d', depth),
    limit = string.format('%d', limit), retry_ms = string.format('%d', retry) }, ' ')
end

local function refusal(adapter, job)
  local ref, agent = job.ref, job.agent
  if not adapter.state then
    return 'unknown'
  end
  if adapter.state ~= 'open' and adapter.state ~= 'paused' then
    return adapter.state
  end
  local depth = gauge('waiting', ref)
  if depth >= adapter.max_depth then
    return full('adapter', depth, adapter.max_depth, ref)
  end
  local undelivered = gauge('window:' .. ref, agent)
  local window = window_for(job.key, adapter.agent_window)
  if undelivered >= window then
    return full('agent', undelivered, window, ref)
  end
  if pool_limit() < math.huge and gauge('waiting', '*') >= pool_limit() then
    return full('pool', gauge('waiting', '*'), pool_limit(), ref)
  end
  return quota_refusal(job)
end

-- A new job in its place; delay and deadline in ms from now, 0 is none; ... are more fields of the record.
local function accept(job, adapter, delay, deadline, payload, ...)
  local state, due, entry, limit = 'queued', '', '', ''
  job.lane = job.priority
  if delay > 0 then
    state, due = 'delayed', NOW + delay
    call('ZADD', P .. 'delayed', due, job.id)
  else
    enter_by_priority(job, gauge('window:' .. job.ref, job.agent), window_for(job.key, adapter.agent_window))
    entry = job.entry
  end
  if deadline > 0 then
    limit = NOW + deadline
    call('ZADD', P .. 'deadlines', limit, job.id)
  end
  counted_window(job, 1)
  count(job, 'submitted', 1)
  reserve(job)
  -- What claim and settle read comes first: a small hash is searched from its beginning.
  call('HSET', P .. 'job:' .. job.id, 'state', state, 'lease', '', 'ref', job.ref, 'agent', job.agent, 'attempts', 0,
    'cost', job.cost, 'submitted_ms', NOW, 'stream', job.stream, 'deadline_ms', limit, 'worker', '', 'client', job.client,
    'lost', 0, 'fence', 0, 'digest', adapter.digest or '', 'seed', job.seed, 'key', job.key,
    'priority', job.priority, 'lane', job.lane, 'entry', entry, 'retries', 0, 'due_ms', due, 'turn_ms', job.turn or '',
    'fingerprint', job.fingerprint, ...)
  call('SET', P .. 'payload:' .. job.id, payload)
  return state
end

-- Write the sums of what was accepted, and tell workers.
local function announce()
  local refs = {}
  for ref in pairs(touched) do
    refs[#refs + 1] = ref
  end
  conclude()
  for _, ref in ipairs(refs) do
    wake(ref)
  end
end
