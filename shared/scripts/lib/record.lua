-- The record of a job, a hash: read with care, since others may have written there too.

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
