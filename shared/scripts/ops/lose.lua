-- uses: leases reaping record unit_of_work wake
-- A worker's own word that it lost these jobs: what ran them died or hung with them. Each loss counts at once, as if
-- the lease had been reaped. A lease that no longer holds changes nothing.
-- KEYS[1] partition prefix
-- ARGV HELD for each job
-- returns 1
local lost, refs = {}, {}
for at = 0, #ARGV - 1, HELD.WIDTH do
  local job, lease = load_job(ARGV[at + HELD.id]), ARGV[at + HELD.lease]
  if job and holds(lease, job.state, job.lease) then
    lost[#lost + 1] = job
    refs[job.ref] = true
  end
end
reap_all(lost, false)
conclude()
for ref in pairs(refs) do
  wake(ref)
end
return 1
