-- uses: batches
-- Lease one open batch that nobody holds to a feeder, the longest open first; and note that the feeder is there.
-- KEYS[1] pool prefix
-- ARGV BATCH_TAKE
-- returns the batch's id, nil where there is none for it
local token, most = ARGV[BATCH_TAKE.token], tonumber(ARGV[BATCH_TAKE.per_agent])
local feeders = P .. 'feeders'
call('ZADD', feeders, NOW + tonumber(ARGV[BATCH_TAKE.beat_ms]), ARGV[BATCH_TAKE.holder])
call('ZREMRANGEBYSCORE', feeders, '-inf', NOW)
call('PEXPIRE', feeders, TTL.feeders)
if token == '' then -- it holds enough
  return nil
end

local function lease(id)
  call('HSET', batch_of(id), 'lease', token, 'holder', ARGV[BATCH_TAKE.holder],
    'lease_until_ms', NOW + tonumber(ARGV[BATCH_TAKE.lease_ms]))
  return id
end

local held, free = {}, {} -- batches by agent; ids and agents
for _, id in ipairs(call('ZRANGE', P .. 'batches_open', 0, LOOKED_AT - 1)) do
  local holder, until_ms, agent = unpack(call('HMGET', batch_of(id), 'lease', 'lease_until_ms', 'agent'))
  if not agent then
    call('ZREM', P .. 'batches_open', id)
  elseif holder == token then
    return lease(id)
  elseif not taken_until(until_ms) then
    free[#free + 1] = { id, agent }
  elseif holder ~= '' then
    held[agent] = (held[agent] or 0) + 1
  end
end
for _, each in ipairs(free) do
  if (held[each[2]] or 0) < most then
    return lease(each[1])
  end
end
return nil
