-- Write down what a pool's totals were in this minute; the first who comes in a minute does, all others change nothing.
-- KEYS[1] pool prefix
-- ARGV PAIR for each total
-- returns the minute (ms) where it was written, 0 where it was there already
local KEPT = 1440 -- a day
local key, minute = P .. 'history', NOW - NOW % 60000
local last = call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
local last_ms = last and tonumber(string.match(last[1], '^%d+')) or 0
if last_ms > NOW then -- the clock was set back
  call('DEL', key)
elseif last_ms >= minute then
  return 0
end
local fields = {}
for i = 1, #ARGV do
  fields[i] = ARGV[i]
end
call('XADD', key, 'MAXLEN', KEPT, string.format('%d-0', minute), 'at_ms', AT, unpack(fields))
call('PEXPIRE', key, TTL.history)
return minute
