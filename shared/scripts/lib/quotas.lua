-- uses: record
-- What API keys may use, and what they have used: jobs in this minute, tokens in this day (UTC, by the server's clock),
-- both by when a job was submitted. A job's tokens are reserved until it ends, and are then what it used.

local MINUTE_MS, DAY_MS = 60000, 86400000
local allowances, uses = {}, {} -- by key

-- When the window began that a moment is in.
local function window_start(moment, length)
  return math.floor(moment / length) * length
end

-- nil for a limit that was not set; `good`: it may submit.
local function allowance_of(key)
  local had = allowances[key]
  if not had then
    local digest, revoked, jobs, tokens, window = unpack(call('HMGET', P .. 'key:' .. key, 'digest', 'revoked_ms',
      'jobs_per_minute', 'tokens_per_day', 'window'))
    had = { good = digest and revoked == '', jobs = number(jobs), tokens = number(tokens), window = number(window) }
    allowances[key] = had
  end
  return had
end

local function use_of(key)
  local use = uses[key]
  if not use then
    local minute, jobs, day, tokens = unpack(call('HMGET', P .. 'quota:' .. key, 'minute_ms', 'jobs', 'day_ms', 'tokens'))
    use = { jobs = number(minute) == window_start(NOW, MINUTE_MS) and number(jobs) or 0,
      tokens = number(day) == window_start(NOW, DAY_MS) and number(tokens) or 0 }
    uses[key] = use
  end
  return use
end

local function over(key, name, limit, used, length)
  return 'quota ' .. table.concat(QUOTA { key = key, limit_name = name, limit = string.format('%d', limit),
    used = string.format('%d', used), retry_ms = string.format('%d', window_start(NOW, length) + length - NOW) }, ' ')
end

-- Why a job may not be charged to its key, or nil.
local function quota_refusal(job)
  if job.key == '' then
    return nil
  end
  local limit, use = allowance_of(job.key), use_of(job.key)
  if not limit.good then
    return 'no_key ' .. job.key
  elseif limit.jobs and use.jobs >= limit.jobs then
    return over(job.key, 'jobs_per_minute', limit.jobs, use.jobs, MINUTE_MS)
  elseif limit.tokens and use.tokens + job.cost > limit.tokens then
    return over(job.key, 'tokens_per_day', limit.tokens, use.tokens, DAY_MS)
  end
end

-- How many undelivered jobs an agent may have: its key's word, or its adapter's.
local function window_for(key, of_adapter)
  return key ~= '' and allowance_of(key).window or of_adapter
end

local function change_use(key, jobs, tokens)
  local use = use_of(key)
  use.jobs, use.tokens, use.changed = use.jobs + jobs, math.max(0, use.tokens + tokens), true
end

local function reserve(job)
  if job.key ~= '' then
    change_use(job.key, 1, job.cost)
  end
end

-- A job has ended. One of an earlier day has nothing reserved any more.
local function correct(job)
  if job.key ~= '' and window_start(job.submitted, DAY_MS) == window_start(NOW, DAY_MS) then
    change_use(job.key, 0, (job.used or 0) - job.cost)
  end
end

local function write_quotas()
  for key, use in pairs(uses) do
    if use.changed then
      call('HSET', P .. 'quota:' .. key, 'minute_ms', window_start(NOW, MINUTE_MS), 'jobs', use.jobs,
        'day_ms', window_start(NOW, DAY_MS), 'tokens', use.tokens)
      call('PEXPIRE', P .. 'quota:' .. key, TTL.quota)
    end
  end
end
