-- uses: ready
-- Let an adapter take jobs, or change its limits.
-- KEYS[1] partition prefix
-- ARGV OPEN, then PAIR for each limit
-- returns its state
local ref = ARGV[OPEN.ref]
local key = P .. 'adapter:' .. ref
local state = call('HGET', key, 'state')
if state ~= 'paused' then -- opening again does not resume what an operator paused
  state = 'open'
end
call('HSET', key, 'state', state)
call('HSETNX', key, 'digest', ARGV[OPEN.digest]) -- a version is immutable: a second verdict changes nothing
for at = OPEN.WIDTH, #ARGV - 1, PAIR.WIDTH do
  call('HSET', key, ARGV[at + PAIR.field], ARGV[at + PAIR.value])
end
review({ ref })
return state
