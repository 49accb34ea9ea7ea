-- uses: counters losses unit_of_work
-- Append token deltas of streamed jobs. A delta that is there already (its offset was passed) is not appended again.
-- KEYS[1] partition prefix
-- ARGV for each delta: id, lease, attempt, offset, number of tokens, text, token ids as text
-- returns the ids no longer held, as one text
local lost = {}
for i = 1, #ARGV, 7 do
  local id, lease, attempt, offset = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local key = P .. 'job:' .. id
  local v = call('HMGET', key, 'state', 'lease', 'emitted', 'ref', 'agent', 'settled', 'stream')
  if v[1] ~= 'running' or v[2] ~= lease then
    if v[6] ~= lease then
      lost[#lost + 1] = id
      if v[1] then
        count({ ref = v[4], agent = v[5] }, 'stale', 1)
        lift(id, lease)
      end
    end
  elseif v[7] == '1' then
    local fresh, tokens, emitted = tonumber(ARGV[i + 4]), P .. 'tokens:' .. id, tonumber(v[3]) or 0
    if fresh == 0 or offset >= emitted then
      call('XADD', tokens, '*', 'kind', 'delta', 'attempt', attempt, 'offset', offset, 'text', ARGV[i + 5],
        'token_ids', ARGV[i + 6])
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
