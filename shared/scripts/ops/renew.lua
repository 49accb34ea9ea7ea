-- uses: counters losses unit_of_work
-- Extend leases that still hold.
-- KEYS[1] partition prefix
-- ARGV lease_ms, then for each job: id, lease
-- returns {lost ids, cancelled ids, overdue ids}, each as one text; a job this lease settled or released is none
local due = NOW + tonumber(ARGV[1])
local lost, stop, extended = {}, { cancelled = {}, deadline = {} }, {}
for i = 2, #ARGV, 2 do
  local id, lease = ARGV[i], ARGV[i + 1]
  local v = call('HMGET', P .. 'job:' .. id, 'state', 'lease', 'settled', 'cancel', 'ref', 'agent', 'released',
    'lost_leases')
  if v[1] == 'running' and v[2] == lease then
    extended[#extended + 1] = due
    extended[#extended + 1] = id
    if stop[v[4]] then
      table.insert(stop[v[4]], id)
    end
  elseif v[3] ~= lease and v[7] ~= lease then
    lost[#lost + 1] = id
    if v[1] then
      count({ ref = v[5], agent = v[6] }, 'stale', 1)
      if v[8] and v[8] ~= '' then
        lift(id, lease)
      end
    end
  end
end
if #extended > 0 then
  call('ZADD', P .. 'leases', unpack(extended))
end
conclude()
return { table.concat(lost, ' '), table.concat(stop.cancelled, ' '), table.concat(stop.deadline, ' ') }
