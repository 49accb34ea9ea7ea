-- The record of a job, a hash: read with care, since others may have written there too.

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
  call('HSET', key, 'state', 'failed', 'finished_ms', AT, 'lease', '', 'error', 'MalformedEntry',
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

-- Whose quota a job is charged to, '' for nobody's.
local function charged_key(text)
  return is_name(text) and text or ''
end

local function load_job(id)
  local v = call('HMGET', P .. 'job:' .. id, JOB.FIELDS)
  local state, ref, agent, attempts, lost = v[JOB.state], v[JOB.ref], v[JOB.agent], v[JOB.attempts], v[JOB.lost]
  local fence, submitted, cost = v[JOB.fence], v[JOB.submitted_ms], v[JOB.cost]
  if not state or not sound(id, state, ref, agent, attempts, lost, fence, submitted, cost) then
    return nil
  end
  return { id = id, state = state, lease = v[JOB.lease] or '', ref = ref, agent = agent, client = v[JOB.client],
    stream = v[JOB.stream], attempts = tonumber(attempts), lost = tonumber(lost), fence = tonumber(fence),
    submitted = tonumber(submitted), deadline = number(v[JOB.deadline_ms]), cancel = v[JOB.cancel],
    cost = tonumber(cost), lane = v[JOB.lane] or 'normal', entry = v[JOB.entry] or '', worker = v[JOB.worker] or '',
    priority = v[JOB.priority] or 'normal', settled = v[JOB.settled], digest = v[JOB.digest] or '',
    seed = v[JOB.seed] or '0', started = number(v[JOB.started_ms]), first_token = number(v[JOB.first_token_ms]),
    lifted = number(v[JOB.lifted]) or 0, lost_leases = v[JOB.lost_leases] or '', due = number(v[JOB.due_ms]),
    spared = v[JOB.spared], key = charged_key(v[JOB.key]) }
end
