-- uses: counters leases losses unit_of_work
-- Extend leases that still hold.
-- KEYS[1] partition prefix
-- ARGV RENEW, then HELD for each job
-- returns RENEWAL, of each the ids as one text; a job that this lease settled or released is none
local due = NOW + tonumber(ARGV[RENEW.lease_ms])
local lost, stop, extended = {}, { cancelled = {}, deadline = {} }, {}
for at = RENEW.WIDTH, #ARGV - 1, HELD.WIDTH do
  local id, lease = ARGV[at + HELD.id], ARGV[at + HELD.lease]
  local state, holder, settled, cancel, ref, agent, released, lost_leases = unpack(call('HMGET', P .. 'job:' .. id,
    'state', 'lease', 'settled', 'cancel', 'ref', 'agent', 'released', 'lost_leases'))
  if holds(lease, state, holder) then
    extended[#extended + 1] = due
    extended[#extended + 1] = id
    if stop[cancel] then
      table.insert(stop[cancel], id)
    end
  elseif settled ~= lease and released ~= lease then
    lost[#lost + 1] = id
    if state then
      count({ ref = ref, agent = agent }, 'stale', 1)
      if lost_leases and lost_leases ~= '' then
        lift(id, lease)
      end
    end
  end
end
if #extended > 0 then
  call('ZADD', P .. 'leases', unpack(extended))
end
conclude()
return RENEWAL { lost = table.concat(lost, ' '), cancelled = table.concat(stop.cancelled, ' '),
  overdue = table.concat(stop.deadline, ' ') }
