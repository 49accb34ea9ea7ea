-- uses: jobs
-- The facts behind where a job is.
-- KEYS[1] partition prefix
-- ARGV id
-- returns names and values, flat; empty for an unknown job
local LOOK = 500
local job = load_job(ARGV[1])
if not job then
  return {}
end
local facts = { 'now_ms', string.format('%d', NOW) }

local function fact(name, value)
  facts[#facts + 1] = name
  facts[#facts + 1] = tostring(value or '')
end

local function ahead()
  local n = 0
  local lanes = { 'again', 'high', 'normal', 'low' }
  for _, lane in ipairs(lanes) do
    local key = stream_of(job.ref, lane)
    if lane == job.lane then
      return n + #call('XRANGE', key, '-', '(' .. job.entry, 'COUNT', LOOK)
    end
    n = n + call('XLEN', key)
  end
  return n
end

local seen = string.match(call('GET', P .. 'reaper') or '', '^%d+')
fact('worker_seen_ms_ago', seen and string.format('%d', NOW - tonumber(seen)) or '')
fact('adapter_state', call('HGET', P .. 'adapter:' .. job.ref, 'state'))
fact('adapter_waiting', gauge('waiting', job.ref))
fact('adapter_running', gauge('running', job.ref))
fact('adapter_max_inflight', call('HGET', P .. 'adapter:' .. job.ref, 'max_inflight'))
if job.state == 'queued' and job.lane ~= 'suspect' then
  fact('ahead', ahead())
elseif job.state == 'queued' then
  fact('ahead', call('ZRANK', P .. 'suspects', job.id))
elseif job.state == 'running' then
  fact('lease_until_ms', call('ZSCORE', P .. 'leases', job.id))
end
local names = { 'state', 'ref', 'agent', 'lane', 'worker', 'attempts', 'lost', 'lifted', 'cancel', 'started_ms',
  'first_token_ms', 'finished_ms', 'due_ms', 'deadline_ms', 'error', 'message', 'submitted_ms', 'dead' }
local values = call('HMGET', P .. 'job:' .. job.id, unpack(names))
for i, name in ipairs(names) do
  fact(name, values[i])
end
return facts
