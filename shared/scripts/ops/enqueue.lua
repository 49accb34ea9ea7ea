-- uses: admission
-- Accept jobs, each by itself: a refused one leaves nothing behind.
-- KEYS[1] partition prefix
-- ARGV for each job: id, fingerprint, ref, agent, client, priority, stream (0 | 1), seed, cost, delay_ms, deadline_ms
--      (0: none), payload
-- returns for each job one text: 'new STATE' | 'same STATE' | 'conflict' | 'unknown' | 'STATE' of the adapter that
--      refuses | 'full SCOPE DEPTH LIMIT RETRY_AFTER_MS' | 'invalid FIELD': not as this client's library would send it
local WIDTH = 12
local PRIORITIES = { high = true, normal = true, low = true }

local function is_plain(text)
  return #text <= 128 and string.find(text, '^%w[%w._-]*$') ~= nil
end

local function is_ref(text)
  local id, version = string.match(text, '^([^@]+)@([^@]+)$')
  return text == '_base' or id ~= nil and is_plain(id) and is_plain(version)
end

local function is_whole(text)
  return #text <= 15 and string.find(text, '^%d+$') ~= nil
end

-- Names become parts of keys, and numbers are reckoned with: what a raw client sends is looked at here, field by field.
local CHECKS = {
  { 'id', 0, function(text) return is_plain(text) and not string.find(text, '^%d+%.') end },
  { 'ref', 2, is_ref },
  { 'agent', 3, is_plain },
  { 'client', 4, function(text) return text == '' or is_plain(text) end },
  { 'priority', 5, function(text) return PRIORITIES[text] end },
  { 'stream', 6, function(text) return text == '0' or text == '1' end },
  { 'seed', 7, function(text) return #text <= 19 and string.find(text, '^%d+$') end },
  { 'cost', 8, is_whole },
  { 'delay', 9, is_whole },
  { 'deadline', 10, is_whole },
  { 'payload', 11, function(text) return text ~= '' end },
}

local function what_is_wrong(i)
  for _, check in ipairs(CHECKS) do
    local text = ARGV[i + check[2]]
    if not text or not check[3](text) then
      return check[1]
    end
  end
end

local function enqueue(i)
  local wrong = what_is_wrong(i)
  if wrong then
    return 'invalid ' .. wrong
  end
  local known = call('HMGET', P .. 'job:' .. ARGV[i], 'fingerprint', 'state')
  if known[1] then
    return known[1] == ARGV[i + 1] and 'same ' .. (known[2] or 'failed') or 'conflict'
  end
  local job = { id = ARGV[i], fingerprint = ARGV[i + 1], ref = ARGV[i + 2], agent = ARGV[i + 3], client = ARGV[i + 4],
    priority = ARGV[i + 5], stream = ARGV[i + 6], seed = ARGV[i + 7], cost = ARGV[i + 8] }
  local adapter = adapter_of(job.ref)
  return refusal(adapter, job.ref, job.agent)
    or 'new ' .. accept(job, adapter, tonumber(ARGV[i + 9]), tonumber(ARGV[i + 10]), ARGV[i + 11])
end

local replies = {}
for i = 1, #ARGV, WIDTH do
  replies[#replies + 1] = enqueue(i)
end
announce()
return replies
