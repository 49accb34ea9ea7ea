-- uses: admission
-- Accept jobs, each by itself: a refused one leaves nothing behind.
-- KEYS[1] partition prefix
-- ARGV ENQUEUE for each job
-- returns for each job one text: 'new STATE' | 'same STATE' | 'conflict' | 'unknown' | 'STATE' of the adapter that
--      refuses | 'full ' and FULL | 'no_key KEY' | 'quota ' and QUOTA | 'invalid FIELD': not as this client's library
--      would send it
local PRIORITIES = { PRIORITY.ALL }

local function is_plain(text)
  return #text <= 128 and string.find(text, '^%w[%w._-]*$') ~= nil
end

local function is_ref(text)
  local id, version = string.match(text, '^([^@]+)@([^@]+)$')
  return text == REF.BASE or id ~= nil and is_plain(id) and is_plain(version)
end

local function is_whole(text)
  return #text <= 15 and string.find(text, '^%d+$') ~= nil
end

-- Names become parts of keys, and numbers are reckoned with: what a raw client sends is looked at here, field by field.
local CHECKS = {
  { 'id', ENQUEUE.id, function(text) return is_plain(text) and not string.find(text, '^%d+%.') end },
  { 'ref', ENQUEUE.ref, is_ref },
  { 'agent', ENQUEUE.agent, is_plain },
  { 'client', ENQUEUE.client, function(text) return text == '' or is_plain(text) end },
  { 'priority', ENQUEUE.priority, function(text) return PRIORITIES[text] end },
  { 'stream', ENQUEUE.stream, function(text) return text == '0' or text == '1' end },
  { 'seed', ENQUEUE.seed, function(text) return #text <= 19 and string.find(text, '^%d+$') end },
  { 'cost', ENQUEUE.cost, is_whole },
  { 'delay', ENQUEUE.delay_ms, is_whole },
  { 'deadline', ENQUEUE.deadline_ms, is_whole },
  { 'key', ENQUEUE.key, function(text) return text == '' or is_plain(text) end },
  { 'payload', ENQUEUE.payload, function(text) return text ~= '' end },
}

-- `at`: after which argument a job's begin.
local function what_is_wrong(at)
  for _, check in ipairs(CHECKS) do
    local text = ARGV[at + check[2]]
    if not text or not check[3](text) then
      return check[1]
    end
  end
end

local function enqueue(at)
  local wrong = what_is_wrong(at)
  if wrong then
    return 'invalid ' .. wrong
  end
  local job = { id = ARGV[at + ENQUEUE.id], fingerprint = ARGV[at + ENQUEUE.fingerprint], ref = ARGV[at + ENQUEUE.ref],
    agent = ARGV[at + ENQUEUE.agent], client = ARGV[at + ENQUEUE.client], priority = ARGV[at + ENQUEUE.priority],
    stream = ARGV[at + ENQUEUE.stream], seed = ARGV[at + ENQUEUE.seed], cost = ARGV[at + ENQUEUE.cost],
    key = ARGV[at + ENQUEUE.key] }
  local known, state = unpack(call('HMGET', P .. 'job:' .. job.id, 'fingerprint', 'state'))
  if known then
    return known == job.fingerprint and 'same ' .. (state or 'failed') or 'conflict'
  end
  local adapter = adapter_of(job.ref)
  local delay, deadline = tonumber(ARGV[at + ENQUEUE.delay_ms]), tonumber(ARGV[at + ENQUEUE.deadline_ms])
  return refusal(adapter, job)
    or 'new ' .. accept(job, adapter, delay, deadline, ARGV[at + ENQUEUE.payload])
end

local replies = {}
for at = 0, #ARGV - 1, ENQUEUE.WIDTH do
  replies[#replies + 1] = enqueue(at)
end
announce()
return replies
