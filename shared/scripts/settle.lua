-- uses: jobs
-- End attempts. A lease that no longer holds changes nothing but the count of stale refusals.
-- KEYS[1] partition prefix
-- ARGV for each job: id, lease, outcome, error, message, text, finish_reason, prompt_tokens, completion_tokens,
--      load_ms, first_token_ms ('' none), resident (0 | 1), device, dtype, detail, jitter (0..1)
-- returns for each job 'settled STATE' or 'stale STATE' ('-' when the record is gone)
local WIDTH = 16

local function result_fields(job, i)
  return 'settled', ARGV[i + 1], 'text', ARGV[i + 5], 'finish_reason', ARGV[i + 6], 'prompt_tokens', ARGV[i + 7],
    'completion_tokens', ARGV[i + 8], 'load_ms', ARGV[i + 9], 'first_token_ms', job.first_token or '', 'resident', ARGV[i + 11],
    'device', ARGV[i + 12], 'dtype', ARGV[i + 13], 'detail', ARGV[i + 14], 'error', ARGV[i + 3]
end

local function count_work(job, i)
  count(job, 'prompt_tokens', tonumber(ARGV[i + 7]))
  count(job, 'completion_tokens', tonumber(ARGV[i + 8]))
  count(job, 'load_ms', tonumber(ARGV[i + 9]))
  count(job, ARGV[i + 11] == '1' and 'slot_hits' or 'slot_misses', 1)
  job.first_token = tonumber(ARGV[i + 10]) or job.first_token -- else the first delta's time, of a streamed job
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
  if outcome == 'retry' and job.cancel == 'cancelled' then
    outcome = 'cancelled'
  elseif outcome == 'retry' and overdue(job) then
    outcome = 'expired'
  end
  if outcome == 'retry' and job.attempts - job.lost < TERMS.MAX_ATTEMPTS then
    retry(job, i)
  elseif outcome ~= 'retry' and outcome ~= 'dead' then
    count_work(job, i)
    finish(job, outcome, 'message', message, result_fields(job, i))
  else
    count_work(job, i)
    bury(job, error, message, result_fields(job, i))
  end
end

local function settle(i)
  local job = load_job(ARGV[i])
  if not job then
    return 'stale -'
  end
  if job.state == 'running' and job.lease == ARGV[i + 1] then
    end_attempt(job, i)
  elseif job.settled ~= ARGV[i + 1] then
    count(job, 'stale', 1)
    return 'stale ' .. job.state
  end
  return 'settled ' .. job.state
end

local replies = {}
for i = 1, #ARGV, WIDTH do
  replies[#replies + 1] = settle(i)
end
settle_sums()
return replies
