-- The versions of the catalog that are not removed, a part a call, in the order of their registration.
-- KEYS[1] pool prefix
-- ARGV how many were looked at before, how many to look at
-- returns {how many were looked at now, ref...}
local from, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local refs = call('ZRANGE', P .. 'adapters', from, from + count - 1)
local answer = { #refs }
for _, ref in ipairs(refs) do
  local status = call('HGET', P .. 'adapter:' .. ref, 'status')
  if status and status ~= 'removed' then
    answer[#answer + 1] = ref
  end
end
return answer
