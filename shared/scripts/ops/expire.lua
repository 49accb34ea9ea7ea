-- uses: deadlines endings outage reaping record unit_of_work
-- A client's own wish: end this job if its deadline has passed and no living worker has it.
-- KEYS[1] partition prefix
-- ARGV ONE_JOB
-- returns the state afterwards, nil for an unknown job
local job = load_job(ARGV[ONE_JOB.id])
if not job then
  return nil
end
if overdue(job) and LIVE[job.state] then
  call('ZREM', P .. 'deadlines', job.id)
  expire_one(job)
  local lapses = tonumber(call('ZSCORE', P .. 'leases', job.id))
  if job.state == 'running' and lapses and lapses <= NOW and not in_outage() then
    reap_all({ job }, true)
  end
end
conclude()
return job.state
