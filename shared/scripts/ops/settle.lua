-- uses: counters endings leases losses record unit_of_work
-- End attempts. A lease that no longer holds changes nothing but the count of stale refusals.
-- KEYS[1] partition prefix
-- ARGV for each job: id, lease, outcome, error, message, text, finish_reason, prompt_tokens, completion_tokens,
--      load_ms, first_token_ms ('' none), resident (0 | 1), device, dtype, detail, jitter (0..1)
-- returns for each job 'settled STATE' or 'stale STATE' ('-' when the record is gone)
local WIDTH = 16

local RUNNING = { 'state', 'lease', 'ref', 'agent', 'attempts', 'cost', 'submitted_ms', 'stream', 'deadline_ms',
  'worker', 'client', 'lost', 'digest', 'seed', 'started_ms' }

-- As load_job, but only what a settlement needs, as text: it is reckoned with once or not at all.
local function load_running(id)
  local v = call('HMGET', P .. 'job:' .. id, unpack(RUNNING))
  if not v[1] or not sound(id, v[1], v[3], v[4], v[5], v[6], v[7], v[12]) then
    return nil
  end
  return { id = id, state = v[1], lease = v[2], ref = v[3], agent = v[4], attempts = v[5], cost = v[6],
    submitted = v[7], stream = v[8], deadline = number(v[9]), worker = v[10] or '', client = v[11], lost = v[12],
    digest = v[13] or '', seed = v[14] or '', started = number(v[15]) and v[15] }
end

local function field(job, name)
  return call('HGET', P .. 'job:' .. job.id, name)
end

local function result_fields(job, i)
  local fields = { 'settled', ARGV[i + 1], 'text', ARGV[i + 5], 'finish_reason', ARGV[i + 6], 'prompt_tokens', ARGV[i + 7],
    'completion_tokens', ARGV[i + 8], 'load_ms', ARGV[i + 9], 'first_token_ms', job.first_token or '', 'resident', ARGV[i + 11],
    'device', ARGV[i + 12], 'dtype', ARGV[i + 13], 'detail', ARGV[i + 14] }
  local n = #fields
  if ARGV[i + 3] ~= '' or ARGV[i + 4] ~= '' or job.attempts ~= '1' then -- an earlier attempt may have left its own
    fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] = 'error', ARGV[i + 3], 'message', ARGV[i + 4]
  end
  return unpack(fields)
end

-- What an awaiter reads of the record (replies.py), with tabs between, then text and detail; nil where that is long, or
-- no plain success.
local function answer(job, i)
  local text, detail = ARGV[i + 5], ARGV[i + 14]
  if ARGV[i + 2] ~= 'succeeded' or ARGV[i + 4] ~= '' or #text + #detail > TERMS.NOTICE_BYTES then
    return nil
  end
  return table.concat({ 'succeeded', job.ref, job.digest, job.agent, job.seed, job.attempts, job.worker, job.submitted,
    job.started, job.first_token or '', AT, ARGV[i + 9], ARGV[i + 11], ARGV[i + 12], ARGV[i + 13], ARGV[i + 6], ARGV[i + 7],
    ARGV[i + 8], #text }, '\t') .. '\n' .. text .. detail
end

local function count_work(job, i)
  count(job, 'prompt_tokens', tonumber(ARGV[i + 7]))
  count(job, 'completion_tokens', tonumber(ARGV[i + 8]))
  count(job, 'load_ms', tonumber(ARGV[i + 9]))
  count(job, ARGV[i + 11] == '1' and 'slot_hits' or 'slot_misses', 1)
  local first = ARGV[i + 10] ~= '' and ARGV[i + 10] or field(job, 'first_token_ms') -- of a streamed job's first delta
  job.first_token = number(first) and first
end

local function backoff(failures, jitter)
  local wait = math.min(TERMS.BACKOFF_MAX_MS, TERMS.BACKOFF_MS * 2 ^ (failures - 1))
  return math.floor(wait * (0.5 + jitter))
end

local function retry(job, i)
  local due = NOW + backoff(job.attempts - job.lost, tonumber(ARGV[i + 15]))
  call('ZADD', P .. 'delayed', due, job.id)
  counted_window(job, 1)
  count(job, 'retried', 1)
  call('HINCRBY', P .. 'job:' .. job.id, 'retries', 1)
  call('HSET', P .. 'job:' .. job.id, 'state', 'delayed', 'lease', '', 'due_ms', due, 'settled', ARGV[i + 1],
    'error', ARGV[i + 3], 'message', ARGV[i + 4], 'first_token_ms', '')
  job.state = 'delayed'
end

local function end_attempt(job, i)
  local outcome, error, message = ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  leave_running(job)
  charge(job, ARGV[i + 7] + ARGV[i + 8] - job.cost)
  if outcome == 'retry' then
    job.cancel = field(job, 'cancel')
    outcome = unwanted(job) or outcome
  end
  if outcome == 'retry' and job.attempts - job.lost < TERMS.MAX_ATTEMPTS then
    retry(job, i)
  elseif outcome ~= 'retry' and outcome ~= 'dead' then
    count_work(job, i)
    job.answer = answer(job, i)
    finish(job, outcome, result_fields(job, i))
  else
    count_work(job, i)
    bury(job, error, message, result_fields(job, i))
  end
end

local function settle(i)
  local job = load_running(ARGV[i])
  if not job then
    return 'stale -'
  end
  if job.state == 'running' and job.lease == ARGV[i + 1] then
    end_attempt(job, i)
  elseif field(job, 'settled') ~= ARGV[i + 1] then
    count(job, 'stale', 1)
    lift(job.id, ARGV[i + 1])
    return 'stale ' .. job.state
  end
  return 'settled ' .. job.state
end

local replies = {}
for i = 1, #ARGV, WIDTH do
  replies[#replies + 1] = settle(i)
end
conclude()
return replies
