-- uses: counters endings leases losses record unit_of_work
-- End attempts. Under a lease that no longer holds none ends: the refusal is counted, and a loss that was none taken back.
-- KEYS[1] partition prefix
-- ARGV SETTLE for each job
-- returns for each job 'settled STATE' or 'stale STATE' ('-' when the record is gone)
-- As load_job, but only what a settlement needs, as text: it is reckoned with once or not at all.
local function load_running(id)
  local v = call('HMGET', P .. 'job:' .. id, RUNNING.FIELDS)
  local state, ref, agent, attempts = v[RUNNING.state], v[RUNNING.ref], v[RUNNING.agent], v[RUNNING.attempts]
  local cost, submitted, lost = v[RUNNING.cost], v[RUNNING.submitted_ms], v[RUNNING.lost]
  if not state or not sound(id, state, ref, agent, attempts, cost, submitted, lost) then
    return nil
  end
  return { id = id, state = state, lease = v[RUNNING.lease], ref = ref, agent = agent, attempts = attempts, cost = cost,
    submitted = submitted, stream = v[RUNNING.stream], deadline = number(v[RUNNING.deadline_ms]),
    worker = v[RUNNING.worker] or '', client = v[RUNNING.client], lost = lost, digest = v[RUNNING.digest] or '',
    seed = v[RUNNING.seed] or '', started = number(v[RUNNING.started_ms]) and v[RUNNING.started_ms],
    key = charged_key(v[RUNNING.key]) }
end

local function field(job, name)
  return call('HGET', P .. 'job:' .. job.id, name)
end

-- `at`: after which argument an attempt's begin.
local function result_fields(job, at)
  local error, message = ARGV[at + SETTLE.error], ARGV[at + SETTLE.message]
  local fields = { 'settled', ARGV[at + SETTLE.lease], 'text', ARGV[at + SETTLE.text],
    'finish_reason', ARGV[at + SETTLE.finish_reason], 'prompt_tokens', ARGV[at + SETTLE.prompt_tokens],
    'completion_tokens', ARGV[at + SETTLE.completion_tokens], 'load_ms', ARGV[at + SETTLE.load_ms],
    'first_token_ms', job.first_token or '', 'resident', ARGV[at + SETTLE.resident],
    'device', ARGV[at + SETTLE.device], 'dtype', ARGV[at + SETTLE.dtype], 'detail', ARGV[at + SETTLE.detail] }
  local n = #fields
  if error ~= '' or message ~= '' or job.attempts ~= '1' then -- an earlier attempt may have left its own
    fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] = 'error', error, 'message', message
  end
  return unpack(fields)
end

-- What an awaiter reads of the record, with tabs between, then text and detail; nil where that is long, or no plain
-- success.
local function answer(job, at)
  local text, detail = ARGV[at + SETTLE.text], ARGV[at + SETTLE.detail]
  if ARGV[at + SETTLE.outcome] ~= 'succeeded' or ARGV[at + SETTLE.message] ~= ''
    or #text + #detail > TERMS.NOTICE_BYTES then
    return nil
  end
  return table.concat(ANSWER { state = 'succeeded', ref = job.ref, digest = job.digest, agent = job.agent,
    seed = job.seed, attempts = job.attempts, worker = job.worker, submitted_ms = job.submitted,
    started_ms = job.started, first_token_ms = job.first_token or '', finished_ms = AT,
    load_ms = ARGV[at + SETTLE.load_ms], resident = ARGV[at + SETTLE.resident], device = ARGV[at + SETTLE.device],
    dtype = ARGV[at + SETTLE.dtype], finish_reason = ARGV[at + SETTLE.finish_reason],
    prompt_tokens = ARGV[at + SETTLE.prompt_tokens], completion_tokens = ARGV[at + SETTLE.completion_tokens],
    text_bytes = #text }, '\t') .. '\n' .. text .. detail
end

local function count_work(job, at)
  count(job, 'prompt_tokens', tonumber(ARGV[at + SETTLE.prompt_tokens]))
  count(job, 'completion_tokens', tonumber(ARGV[at + SETTLE.completion_tokens]))
  count(job, 'load_ms', tonumber(ARGV[at + SETTLE.load_ms]))
  count(job, ARGV[at + SETTLE.resident] == '1' and 'slot_hits' or 'slot_misses', 1)
  local first = ARGV[at + SETTLE.first_token_ms]
  if first == '' then
    first = field(job, 'first_token_ms') -- of a streamed job's first delta
  end
  job.first_token = number(first) and first
end

local function backoff(failures, jitter)
  local wait = math.min(TERMS.BACKOFF_MAX_MS, TERMS.BACKOFF_MS * 2 ^ (failures - 1))
  return math.floor(wait * (0.5 + jitter))
end

local function retry(job, at)
  local due = NOW + backoff(job.attempts - job.lost, tonumber(ARGV[at + SETTLE.jitter]))
  call('ZADD', P .. 'delayed', due, job.id)
  counted_window(job, 1)
  count(job, 'retried', 1)
  call('HINCRBY', P .. 'job:' .. job.id, 'retries', 1)
  call('HSET', P .. 'job:' .. job.id, 'state', 'delayed', 'lease', '', 'due_ms', due, 'settled', ARGV[at + SETTLE.lease],
    'error', ARGV[at + SETTLE.error], 'message', ARGV[at + SETTLE.message], 'first_token_ms', '')
  job.state = 'delayed'
end

local function end_attempt(job, at)
  local outcome, error, message = ARGV[at + SETTLE.outcome], ARGV[at + SETTLE.error], ARGV[at + SETTLE.message]
  leave_running(job)
  job.used = ARGV[at + SETTLE.prompt_tokens] + ARGV[at + SETTLE.completion_tokens]
  charge(job, job.used - job.cost)
  if outcome == 'retry' then
    job.cancel = field(job, 'cancel')
    outcome = unwanted(job) or outcome
  end
  if outcome == 'retry' and job.attempts - job.lost < TERMS.MAX_ATTEMPTS then
    retry(job, at)
  elseif outcome ~= 'retry' and outcome ~= 'dead' then
    count_work(job, at)
    job.answer = answer(job, at)
    finish(job, outcome, result_fields(job, at))
  else
    count_work(job, at)
    bury(job, error, message, result_fields(job, at))
  end
end

local function settle(at)
  local job = load_running(ARGV[at + SETTLE.id])
  if not job then
    return 'stale -'
  end
  if holds(ARGV[at + SETTLE.lease], job.state, job.lease) then
    end_attempt(job, at)
  elseif field(job, 'settled') ~= ARGV[at + SETTLE.lease] then
    count(job, 'stale', 1)
    lift(job.id, ARGV[at + SETTLE.lease])
    return 'stale ' .. job.state
  end
  return 'settled ' .. job.state
end

local replies = {}
for at = 0, #ARGV - 1, SETTLE.WIDTH do
  replies[#replies + 1] = settle(at)
end
conclude()
return replies
