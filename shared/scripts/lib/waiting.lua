-- uses: counters lanes
-- Where a job waits: in a lane, among the suspects (isolation.lua) or delayed.

-- Out of wherever it waits (queued or delayed).
local function leave_waiting(job)
  if job.state == 'delayed' then
    call('ZREM', P .. 'delayed', job.id)
  elseif job.lane == 'suspect' then
    call('ZREM', P .. 'suspects', job.id)
  else
    leave_lane(job)
  end
  counted_window(job, -1)
end

-- To the suspects. Who has the same group runs again together: a moment, in ms and fractions.
local function enter_suspects(job, group, ...)
  job.lane = 'suspect'
  call('ZADD', P .. 'suspects', group, job.id)
  counted_window(job, 1)
  call('HSET', P .. 'job:' .. job.id, 'state', 'queued', 'lease', '', 'lane', 'suspect', 'first_token_ms', '', ...)
end

-- Back to waiting: to the suspects while a loss stands against it, though its last worker survived it; else first in
-- line. `left`: the worker where it failed, or nil; ... are more fields of the record. Whether it is in line.
local function come_back(job, left, ...)
  if job.lost > job.lifted then
    enter_suspects(job, AT, ...)
    return false
  end
  job.turn = job.turn or math.max(job.submitted, job.due or 0)
  if left then
    enter_lane(job, 'retry', 'left', left)
  else
    enter_lane(job, 'retry')
  end
  counted_window(job, 1)
  call('HSET', P .. 'job:' .. job.id, 'state', 'queued', 'lease', '', 'lane', job.lane, 'entry', job.entry,
    'first_token_ms', '', ...)
  return true
end
