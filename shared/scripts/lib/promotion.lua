-- uses: counters lanes quotas record waiting wake
-- Delayed jobs that are due.

local MOST_PROMOTED = 100

local windows = {}

local function window_of(ref)
  windows[ref] = windows[ref] or number(call('HGET', P .. 'adapter:' .. ref, 'agent_window')) or TERMS.AGENT_WINDOW
  return windows[ref]
end

local function promote_one(job)
  if job.fence > 0 then -- it has run: a retry
    counted_window(job, -1)
    job.turn = NOW
    if come_back(job, job.worker, 'turn_ms', '') then
      wake(job.ref, job.worker)
    end
    return
  end
  enter_by_priority(job, gauge('window:' .. job.ref, job.agent) - 1, window_for(job.key, window_of(job.ref)))
  call('HSET', P .. 'job:' .. job.id, 'state', 'queued', 'lane', job.lane, 'entry', job.entry,
    'turn_ms', job.turn or '')
  wake(job.ref)
end

-- Whether more is due than that.
local function promote()
  local due = call('ZRANGEBYSCORE', P .. 'delayed', '-inf', NOW, 'LIMIT', 0, MOST_PROMOTED)
  for _, id in ipairs(due) do
    call('ZREM', P .. 'delayed', id)
    local job = load_job(id)
    if job and job.state == 'delayed' then
      promote_one(job)
    end
  end
  return #due == MOST_PROMOTED
end
