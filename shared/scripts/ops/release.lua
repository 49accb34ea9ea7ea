-- uses: counters endings leases losses record unit_of_work waiting wake
-- Give jobs back unburnt, first in line. A lease that no longer holds gives nothing back, but
-- shows that its worker is not gone.
-- KEYS[1] partition prefix
-- ARGV HELD for each job
-- returns how many were given back
local given = 0
local refs = {}
for at = 0, #ARGV - 1, HELD.WIDTH do
  local job, lease = load_job(ARGV[at + HELD.id]), ARGV[at + HELD.lease]
  if job and holds(lease, job.state, job.lease) then
    leave_running(job)
    charge(job, -job.cost)
    count(job, 'released', 1)
    given = given + 1
    job.attempts = job.attempts - 1
    if not end_unwanted(job, 'cancelled on request', 'before it ran', 'attempts', job.attempts, 'released', lease)
      and come_back(job, nil, 'attempts', job.attempts, 'released', lease) then
      refs[job.ref] = true
    end
  elseif job then
    lift(job.id, lease)
  end
end
conclude()
for ref in pairs(refs) do
  wake(ref)
end
return given
