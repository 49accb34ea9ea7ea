-- uses: counters inbox quotas
-- How a job ends.

local answered = {} -- keys of payloads that are needed no more
local LATE = 'its deadline passed '

-- To the client's inbox: the state, or a short answer as a whole (job.answer), which saves reading the record.
local function notify(job, state)
  if job.client and job.client ~= '' then
    add_notice(job.client, job.id, job.answer or state)
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

-- The one way into a terminal state. The caller has taken the job out of its place, and says what it `used`, in tokens;
-- ... are more fields of the record.
local function end_job(job, state, ttl_ms, ...)
  local key = P .. 'job:' .. job.id
  call('HSET', key, 'state', state, 'finished_ms', AT, 'lease', '', ...)
  call('PEXPIRE', key, ttl_ms)
  if job.deadline then
    call('ZREM', P .. 'deadlines', job.id)
  end
  job.state = state
  notify(job, state)
  count_end(job, state)
  correct(job)
end

local function finish(job, state, ...)
  end_job(job, state, TERMS.RESULT_TTL_MS, ...)
  answered[#answered + 1] = P .. 'payload:' .. job.id
end

-- Failed for good with its request kept, so that an operator may redrive it.
local function bury(job, reason, message, ...)
  local entry = call('XADD', P .. 'dead', '*', 'job', job.id, 'ref', job.ref, 'agent', job.agent, 'reason', reason,
    'message', string.sub(message, 1, 500), 'attempts', job.attempts, 'lost', job.lost, 'died_ms', AT)
  end_job(job, 'failed', TERMS.DEAD_TTL_MS, 'error', reason, 'message', message, 'dead', entry, ...)
  call('PEXPIRE', P .. 'payload:' .. job.id, TERMS.DEAD_TTL_MS)
  count(job, 'dead', 1)
end

local function overdue(job)
  return job.deadline and job.deadline <= NOW
end

-- How a job ends instead of running again: cancelled, if that was asked for, before expired; nil where it may run.
local function unwanted(job)
  return job.cancel == 'cancelled' and 'cancelled' or overdue(job) and 'expired' or nil
end

-- Ends a job that is taken back unless it may run again, and says whether it did; ... are more fields of the record.
local function end_unwanted(job, cancelled, late, ...)
  local state = unwanted(job)
  if state then
    finish(job, state, 'message', state == 'cancelled' and cancelled or LATE .. late, ...)
  end
  return state
end
