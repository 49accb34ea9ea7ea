-- uses: counters ready wake
-- See whether an adapter has jobs that have not ended; or take no more for it: closed while some have not, removed
-- once none is left.
-- KEYS[1] partition prefix
-- ARGV RETIRE: 'look' or 'close'
-- returns {state afterwards ('' if never opened), waiting (delayed ones too), running}
local ref, wish = ARGV[RETIRE.ref], ARGV[RETIRE.wish]
local key = P .. 'adapter:' .. ref
local state = call('HGET', key, 'state')
local waiting, running = 0, gauge('running', ref)
for _, n in ipairs(call('HVALS', P .. 'window:' .. ref)) do
  waiting = waiting + tonumber(n)
end
if state and wish == 'close' then
  state = waiting + running == 0 and 'removed' or 'closed'
  call('HSET', key, 'state', state)
  review({ ref })
  if call('ZSCORE', P .. 'ready', ref) then -- it may have been paused
    wake(ref)
  end
end
return { state or '', waiting, running }
