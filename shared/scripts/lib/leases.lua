-- uses: counters
-- The leases of running jobs.

local unleased = {} -- job ids out of `leases`

local function leave_running(job)
  unleased[#unleased + 1] = job.id
  add(gauges, 'running', job.ref, -1)
  add(gauges, 'held', job.worker, -1)
  touched[job.ref] = true
end
