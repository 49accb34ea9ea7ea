-- uses: deadlines letters outage promotion reaping
-- What any worker does for the whole partition when it comes by: promote, reap, expire; bounded a call.

local more_is_due = false -- than one call may do

local function housekeeping(lease_ms)
  local outage = in_outage(lease_ms)
  local more_to_promote = promote()
  if not outage then
    reap()
  end
  more_is_due = expire_due() or more_to_promote
  if second_turned then
    trim_letters()
  end
end
