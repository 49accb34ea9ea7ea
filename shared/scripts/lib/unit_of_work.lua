-- uses: counters endings inbox leases quotas ready
-- The end of a call: what many jobs of it can share a command for is written here, once.

-- Write what was summed up. `heads` as in review_ready.
local function conclude(heads)
  if #unleased > 0 then
    call('ZREM', P .. 'leases', unpack(unleased))
  end
  if #answered > 0 then
    call('UNLINK', unpack(answered))
  end
  write_notices()
  write_sums(gauges, P, true)
  write_counts()
  write_quotas()
  local refs = {}
  for ref in pairs(touched) do
    refs[#refs + 1] = ref
  end
  review(refs, heads)
  gauges, counts, charges, touched, entered = {}, {}, {}, {}, {}
  unleased, answered, notices, uses = {}, {}, {}, {}
end
