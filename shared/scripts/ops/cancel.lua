-- uses: endings record unit_of_work waiting
-- End a job on request: at once where it waits; where it runs, its worker is told and settles it.
-- KEYS[1] partition prefix
-- ARGV ONE_JOB
-- returns the state afterwards, nil for an unknown job
local job = load_job(ARGV[ONE_JOB.id])
if not job then
  return nil
end
if job.state == 'queued' or job.state == 'delayed' then
  leave_waiting(job)
  finish(job, 'cancelled', 'message', 'cancelled on request before it ran')
elseif job.state == 'running' and job.cancel ~= 'cancelled' then
  call('HSET', P .. 'job:' .. job.id, 'cancel', 'cancelled')
  local key = P .. 'ctl:' .. job.worker
  call('XADD', key, 'MAXLEN', '~', TERMS.CONTROL_MAX, '*', 'op', 'cancel', 'job_id', job.id, 'lease', job.lease)
  call('PEXPIRE', key, TTL.ctl)
end
conclude()
return job.state
