-- The counters of many adapters, added up where they are: for a status, which wants only the sums.
-- KEYS[1] partition prefix
-- ARGV refs, a bounded number
-- returns {name, sum, ...}
local sums, names = {}, {}
for _, ref in ipairs(ARGV) do
  local values = call('HGETALL', P .. 'stats:' .. ref)
  for i = 1, #values, 2 do
    local counted = tonumber(values[i + 1])
    if counted and counted == counted and math.abs(counted) < 2 ^ 53 then
      if not sums[values[i]] then
        names[#names + 1] = values[i]
      end
      sums[values[i]] = (sums[values[i]] or 0) + counted
    end
  end
end
local answer = {}
for _, name in ipairs(names) do
  local sum = sums[name]
  answer[#answer + 1] = name
  answer[#answer + 1] = string.format(sum == math.floor(sum) and '%.0f' or '%.6f', sum)
end
return answer
