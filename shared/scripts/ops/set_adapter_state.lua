-- uses: ready wake
-- Pause, resume or close an adapter: paused ones take jobs and are not claimed, closed ones are claimed and take none.
-- KEYS[1] partition prefix
-- ARGV ref, state (open | paused | closed)
-- returns the state before, nil for an adapter that was never opened
local key = P .. 'adapter:' .. ARGV[1]
local before = call('HGET', key, 'state')
if not before then
  return nil
end
call('HSET', key, 'state', ARGV[2])
review({ ARGV[1] })
if call('ZSCORE', P .. 'ready', ARGV[1]) then
  wake(ARGV[1])
end
return before
