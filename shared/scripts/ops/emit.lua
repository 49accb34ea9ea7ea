-- uses: counters leases losses unit_of_work
-- Append token deltas of streamed jobs. A delta that is there already (its offset was passed) is not appended again.
-- KEYS[1] partition prefix
-- ARGV EMIT for each delta
-- returns the ids no longer held, as one text
local function more_of(text)
  if text ~= '' then
    return 'more', text
  end
end

local lost = {}
for at = 0, #ARGV - 1, EMIT.WIDTH do
  local id, lease = ARGV[at + EMIT.id], ARGV[at + EMIT.lease]
  local key = P .. 'job:' .. id
  local state, holder, emitted, ref, agent, settled, stream = unpack(
    call('HMGET', key, 'state', 'lease', 'emitted', 'ref', 'agent', 'settled', 'stream'))
  if not holds(lease, state, holder) then
    if settled ~= lease then
      lost[#lost + 1] = id
      if state then
        count({ ref = ref, agent = agent }, 'stale', 1)
        lift(id, lease)
      end
    end
  elseif stream == '1' then
    local offset, fresh = tonumber(ARGV[at + EMIT.offset]), tonumber(ARGV[at + EMIT.tokens])
    local tokens = P .. 'tokens:' .. id
    emitted = tonumber(emitted) or 0
    if fresh == 0 or offset >= emitted then
      call('XADD', tokens, '*', 'kind', 'delta', 'attempt', ARGV[at + EMIT.attempt], 'offset', offset,
        'text', ARGV[at + EMIT.text], 'token_ids', ARGV[at + EMIT.token_ids], more_of(ARGV[at + EMIT.more]))
      call('HSET', key, 'emitted', offset + fresh)
      if emitted == 0 then
        call('PEXPIRE', tokens, TERMS.RESULT_TTL_MS)
        call('HSET', key, 'first_token_ms', NOW)
      end
    end
  end
end
conclude()
return table.concat(lost, ' ')
