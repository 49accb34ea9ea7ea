-- uses: endings lanes record unit_of_work waiting
-- Cancel jobs of one adapter that wait: in its streams, then among suspects and delayed; a bounded number a call.
-- KEYS[1] partition prefix
-- ARGV ref, where to go on ('' at first)
-- returns {where to go on or '', how many were cancelled}
local ref, ended = ARGV[1], 0

local function end_waiting(id)
  local job = load_job(id)
  if job and job.ref == ref and (job.state == 'queued' or job.state == 'delayed') then
    leave_waiting(job)
    finish(job, 'cancelled', 'message', 'cancelled with all that waited for its adapter')
    ended = ended + 1
  end
end

local function purge_streams()
  for _, lane in ipairs(LANES) do
    for _, entry in ipairs(call('XRANGE', stream_of(ref, lane), '-', '+', 'COUNT', 64 - ended)) do
      end_waiting(job_in(entry))
    end
    if ended >= 64 then
      return 'streams 0'
    end
  end
  return 'suspects 0'
end

local NEXT = { suspects = 'delayed 0', delayed = '' }

local function purge_set(name, cursor)
  local found = call('ZSCAN', P .. name, cursor, 'COUNT', 200)
  for i = 1, #found[2], 2 do
    end_waiting(found[2][i])
  end
  local onward = tostring(found[1])
  return onward == '0' and NEXT[name] or name .. ' ' .. onward
end

local name, cursor = string.match(ARGV[2], '^(%l+) (%d+)$')
local onward
if name == 'suspects' or name == 'delayed' then
  onward = purge_set(name, cursor)
else
  onward = purge_streams()
end
conclude()
return { onward, ended }
