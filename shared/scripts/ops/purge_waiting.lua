-- uses: endings lanes record unit_of_work waiting
-- Cancel jobs of one adapter that wait: in its streams, then among suspects and delayed; a bounded number a call.
-- KEYS[1] partition prefix
-- ARGV PURGE_WAITING; the cursor is where to go on, '' at first
-- returns {where to go on or '', how many were cancelled}
local ref, ended = ARGV[PURGE_WAITING.ref], 0

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
    for _, entry in ipairs(call('XRANGE', stream_of(ref, lane), '-', '+', 'COUNT', TERMS.MAX_JOBS - ended)) do
      end_waiting(job_in(entry))
    end
    if ended >= TERMS.MAX_JOBS then
      return 'streams 0'
    end
  end
  return 'suspects 0'
end

local NEXT = { suspects = 'delayed 0', delayed = '' }

local function purge_set(name, cursor)
  local position, members = unpack(call('ZSCAN', P .. name, cursor, 'COUNT', 200))
  for i = 1, #members, 2 do
    end_waiting(members[i])
  end
  local onward = tostring(position)
  return onward == '0' and NEXT[name] or name .. ' ' .. onward
end

local name, cursor = string.match(ARGV[PURGE_WAITING.cursor], '^(%l+) (%d+)$')
local onward
if name == 'suspects' or name == 'delayed' then
  onward = purge_set(name, cursor)
else
  onward = purge_streams()
end
conclude()
return { onward, ended }
