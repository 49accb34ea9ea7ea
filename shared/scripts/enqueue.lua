-- uses: lanes jobs admission
-- Accept jobs, each by itself: a refused one leaves nothing behind.
-- KEYS[1] partition prefix
-- ARGV for each job: id, fingerprint, ref, agent, client, priority, stream (0 | 1), seed, cost, delay_ms, deadline_ms
--      (0: none), payload
-- returns for each job one text: 'new STATE' | 'same STATE' | 'conflict' | 'unknown' | 'STATE' of the adapter that
--      refuses | 'full SCOPE DEPTH LIMIT RETRY_AFTER_MS'
local WIDTH = 12

local function enqueue(i)
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
