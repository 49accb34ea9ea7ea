-- uses: quotas
-- API keys and what they have used, by when they were added, a part a call.
-- KEYS[1] partition prefix
-- ARGV KEY_LIST: how many were looked at before, how many to look at
-- returns {how many were looked at now, {jobs in this minute, tokens in this day, field, value, ...}...}
local from, wanted = tonumber(ARGV[KEY_LIST.seen]), tonumber(ARGV[KEY_LIST.wanted])
local names = call('ZRANGE', P .. 'keys', from, from + wanted - 1)
local answer = { #names }
for _, name in ipairs(names) do
  local fields = call('HGETALL', P .. 'key:' .. name)
  if #fields > 0 then
    local use = use_of(name)
    answer[#answer + 1] = { use.jobs, use.tokens, unpack(fields) }
  end
end
return answer
