-- The versions of the catalog that are not removed, a part a call, in the order of their registration.
-- KEYS[1] pool prefix
-- ARGV REFS: how many were looked at before, how many to look at
-- returns {how many were looked at now, ref...}
local from, wanted = tonumber(ARGV[REFS.seen]), tonumber(ARGV[REFS.wanted])
local refs = call('ZRANGE', P .. 'adapters', from, from + wanted - 1)
local answer = { #refs }
for _, ref in ipairs(refs) do
  local status = call('HGET', P .. 'adapter:' .. ref, 'status')
  if status and status ~= 'removed' then
    answer[#answer + 1] = ref
  end
end
return answer
