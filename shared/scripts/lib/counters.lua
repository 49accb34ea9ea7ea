-- uses: record
-- What changes in this call, summed up and written once (unit_of_work.lua). Gauges (waiting, window, running, held)
-- follow from where jobs are, counters from what became of them.

local gauges, counts, charges = {}, {}, {} -- counts: by ref, agent, field
local touched, entered = {}, {} -- refs to be reviewed; of those that a job entered, its turn

local function add(sums, key, field, n)
  local fields = sums[key]
  if not fields then
    fields = {}
    sums[key] = fields
  end
  fields[field] = (fields[field] or 0) + n
end

local function count(job, field, n)
  if n ~= 0 and job.ref and job.agent then
    local of_ref = counts[job.ref] or {}
    counts[job.ref] = of_ref
    add(of_ref, job.agent, field, n)
  end
end

local function gauge(key, field)
  local pending = gauges[key] and gauges[key][field] or 0
  return (number(call('HGET', P .. key, field)) or 0) + pending
end

local function write_sums(sums, prefix, drop_zero)
  for name, fields in pairs(sums) do
    local key, names, values, zeros = prefix .. name, {}, {}, {}
    for field in pairs(fields) do
      names[#names + 1] = field
    end
    local had = call('HMGET', key, unpack(names))
    for i, field in ipairs(names) do
      local n = (number(had[i]) or 0) + fields[field]
      if n <= 0 and drop_zero then
        zeros[#zeros + 1] = field
      else
        values[#values + 1] = field
        values[#values + 1] = n
      end
    end
    if #values > 0 then
      call('HSET', key, unpack(values))
    end
    if #zeros > 0 then
      call('HDEL', key, unpack(zeros))
    end
  end
end

local function write_counts()
  local by_ref, by_agent = {}, {}
  for ref, agents in pairs(counts) do
    for agent, fields in pairs(agents) do
      for field, n in pairs(fields) do
        add(by_ref, ref, field, n)
        add(by_agent, agent, field, n)
      end
    end
  end
  write_sums(by_ref, P .. 'stats:', false)
  write_sums(by_agent, P .. 'agent:', false)
  for agent, fields in pairs(by_agent) do
    if fields.submitted then
      call('PEXPIRE', P .. 'agent:' .. agent, TERMS.AGENT_TTL_MS)
    end
  end
end

local function charge(job, tokens)
  charges[job.ref] = (charges[job.ref] or 0) + tokens
end

local function counted_window(job, n)
  add(gauges, 'window:' .. job.ref, job.agent, n)
end
