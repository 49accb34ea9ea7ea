-- uses: endings record waiting
-- Jobs whose deadline has passed.

local MOST_EXPIRED = 200

local function expire_waiting(job)
  leave_waiting(job)
  finish(job, 'expired', 'message', LATE .. 'while it waited')
end

local function expire_one(job)
  if job.state ~= 'running' then
    expire_waiting(job)
  elseif not job.cancel or job.cancel == '' then -- its worker hears of it on renewal; if it vanished, reaping ends it
    call('HSET', P .. 'job:' .. job.id, 'cancel', 'deadline')
  end
end

-- Whether more is due than that.
local function expire_due()
  local due = call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', NOW, 'LIMIT', 0, MOST_EXPIRED)
  for _, id in ipairs(due) do
    call('ZREM', P .. 'deadlines', id)
    local job = load_job(id)
    if job and LIVE[job.state] then
      expire_one(job)
    end
  end
  return #due == MOST_EXPIRED
end
