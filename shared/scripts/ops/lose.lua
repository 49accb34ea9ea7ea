-- uses: reaping record unit_of_work wake
-- A worker's own word that it lost these jobs: what ran them died or hung with them. Each loss counts at once, as if
-- the lease had been reaped. A lease that no longer holds changes nothing.
-- KEYS[1] partition prefix
-- ARGV for each job: id, lease
-- returns 1
local lost, refs = {}, {}
for i = 1, #ARGV, 2 do
  local job = load_job(ARGV[i])
  if job and job.state == 'running' and job.lease == ARGV[i + 1] then
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
