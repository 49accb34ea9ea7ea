-- uses: counters
-- The leases of running jobs.

-- Whether `lease` is the one that a job runs under, given its state and its own lease. Who holds none writes nothing.
local function holds(lease, state, own)
  return state == 'running' and own == lease
end

local unleased = {} -- job ids out of `leases`

local function leave_running(job)
  unleased[#unleased + 1] = job.id
  add(gauges, 'running', job.ref, -1)
  add(gauges, 'held', job.worker, -1)
  touched[job.ref] = true
end
