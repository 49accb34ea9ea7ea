-- uses: ready
-- Let an adapter take jobs, or change its limits.
-- KEYS[1] partition prefix
-- ARGV ref, digest, field, value, ...   (max_depth, max_inflight, agent_window, weight)
-- returns its state
local key = P .. 'adapter:' .. ARGV[1]
local state = call('HGET', key, 'state')
if state ~= 'paused' then -- opening again does not resume what an operator paused
  state = 'open'
end
call('HSET', key, 'state', state)
call('HSETNX', key, 'digest', ARGV[2]) -- a version is immutable: a second verdict changes nothing
for i = 3, #ARGV, 2 do
  call('HSET', key, ARGV[i], ARGV[i + 1])
end
review({ ARGV[1] })
return state
