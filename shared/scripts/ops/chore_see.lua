-- Note which workers live, and find those who did once.
-- KEYS[1] pool prefix
-- ARGV worker...   (who beats now)
-- returns those noted before who do not beat, at most 100
local key = P .. 'seen'
local gone = {}
for _, worker in ipairs(call('ZRANGE', key, 0, -1)) do
  if #gone < 100 and call('EXISTS', P .. 'worker:' .. worker) == 0 then
    gone[#gone + 1] = worker
  end
end
for _, worker in ipairs(ARGV) do
  call('ZADD', key, NOW, worker)
end
call('PEXPIRE', key, TTL.seen)
return gone
