-- uses: counters
-- Drop what a worker left behind. One that has leases left is not forgotten: its jobs must be reaped first.
-- KEYS[1] partition prefix
-- ARGV worker
-- returns keys and members dropped, or -1 where it still holds jobs
local worker = ARGV[1]
if gauge('held', worker) > 0 then
  return -1
end
local dropped = 0
for _, kind in ipairs({ 'ctl:', 'claim:', 'wake:', 'idle:', 'alone:' }) do
  dropped = dropped + call('UNLINK', P .. kind .. worker)
end
for _, set in ipairs({ 'apart', 'here' }) do
  dropped = dropped + call('ZREM', P .. set, worker)
end
return dropped
