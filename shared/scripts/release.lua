-- uses: lanes jobs
-- Give jobs back unburnt, first in line. A lease that no longer holds gives nothing back, but
-- shows that its worker is not gone.
-- KEYS[1] partition prefix
-- ARGV for each job: id, lease
-- returns how many were given back
local given = 0
local refs = {}
for i = 1, #ARGV, 2 do
  local job = load_job(ARGV[i])
  if job and job.state == 'running' and job.lease == ARGV[i + 1] then
    leave_running(job)
    charge(job, -job.cost)
    count(job, 'released', 1)
    given = given + 1
    job.attempts = job.attempts - 1
    if job.cancel == 'cancelled' then
      finish(job, 'cancelled', 'attempts', job.attempts, 'message', 'cancelled on request', 'released', ARGV[i + 1])
    elseif overdue(job) then
      finish(job, 'expired', 'attempts', job.attempts, 'message', LATE .. 'before it ran', 'released', ARGV[i + 1])
    elseif job.lost > job.lifted then
      enter_suspects(job, AT, 'attempts', job.attempts, 'released', ARGV[i + 1])
    else
      enter_again(job, 'attempts', job.attempts, 'released', ARGV[i + 1])
      refs[job.ref] = true
    end
  elseif job then
    lift(job.id, ARGV[i + 1])
  end
end
conclude()
for ref in pairs(refs) do
  wake(ref)
end
return given
