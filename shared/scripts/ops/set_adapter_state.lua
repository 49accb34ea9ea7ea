-- uses: ready wake
-- Pause, resume or close an adapter: paused ones take jobs and are not claimed, closed ones are claimed and take none.
-- KEYS[1] partition prefix
-- ARGV SET_ADAPTER_STATE: open, paused or closed
-- returns the state before, nil for an adapter that was never opened
local ref = ARGV[SET_ADAPTER_STATE.ref]
local key = P .. 'adapter:' .. ref
local before = call('HGET', key, 'state')
if not before then
  return nil
end
call('HSET', key, 'state', ARGV[SET_ADAPTER_STATE.state])
review({ ref })
if call('ZSCORE', P .. 'ready', ref) then
  wake(ref)
end
return before
