-- uses: counters lanes record
-- The facts behind where a job is.
-- KEYS[1] partition prefix
-- ARGV ONE_JOB
-- returns names and values, flat; empty for an unknown job
local LOOK = 500
local job = load_job(ARGV[ONE_JOB.id])
if not job then
  return {}
end
local facts = { 'now_ms', string.format('%d', NOW) }

local function fact(name, value)
  facts[#facts + 1] = name
  facts[#facts + 1] = tostring(value or '')
end

-- Of each lane those that are given before this job; its own lane's are, up to its entry.
local function ahead_in(lane, turn)
  local key, own = stream_of(job.ref, lane), lane == job.lane
  local entries = call('XRANGE', key, '-', own and '(' .. job.entry or '+', 'COUNT', LOOK)
  local n = own and #entries or 0
  for _, entry in ipairs(own and {} or entries) do
    n = n + ((lane == 'retry' or turn_in(entry) + PASSED_MS[lane] < turn) and 1 or 0)
  end
  return n
end

local function ahead()
  local n, turn = 0, turn_of(job.id) + (PASSED_MS[job.lane] or 0)
  for _, lane in ipairs(LANES) do
    n = n + ahead_in(lane, turn)
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
