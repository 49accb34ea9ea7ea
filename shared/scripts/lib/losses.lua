-- uses: counters record waiting wake
-- Losses that stand on a job's record: each is the lease of a worker that vanished with it.

-- Take the loss under that lease back from a job: `lost` counts it on, `lifted` against it. What ended stays as it is.
local function take_back(job, lease)
  local left, stood = {}, false
  for known in string.gmatch(job.lost_leases, '%S+') do
    if known == lease then
      stood = true
    else
      left[#left + 1] = known
    end
  end
  if not stood or ENDED[job.state] then
    return
  end
  job.lifted, job.lost_leases = job.lifted + 1, table.concat(left, ' ')
  count(job, 'lifted', 1)
  call('HSET', P .. 'job:' .. job.id, 'lifted', job.lifted, 'lost_leases', job.lost_leases)
  if job.state == 'queued' and job.lane == 'suspect' and job.lifted >= job.lost then
    leave_waiting(job)
    come_back(job)
    wake(job.ref)
  end
end

-- A worker that comes back with a lease that was reaped was slow, not gone: that is no loss.
local function lift(id, lease)
  local job = load_job(id)
  if job then
    take_back(job, lease)
  end
end
