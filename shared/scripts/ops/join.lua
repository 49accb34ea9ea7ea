-- uses: membership
-- A worker takes its name, unless another boot lives under it. It does not take jobs yet.
-- KEYS[1] pool prefix
-- ARGV worker, boot, ttl_ms, boot that may be displaced (or ''), field, value, ...
-- returns {'joined'}, or {'taken', boot, host, pid, place, beat_ms, ttl_ms} of who lives under it
local worker, boot, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local key = P .. 'worker:' .. worker
local found = call('HMGET', key, 'boot', 'host', 'pid', 'place', 'beat_ms', 'ttl_ms')
local holder = found[1] or ''
if holder ~= '' and holder ~= boot and holder ~= ARGV[4] then
  return { 'taken', holder, found[2] or '', found[3] or '', found[4] or '', found[5] or '', found[6] or '' }
end
if holder ~= boot then
  call('DEL', key)
end
local fields = { 'boot', boot, 'ttl_ms', ttl, 'beat_ms', string.format('%d', NOW), 'serves', '0' }
for i = 5, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
call('HSET', key, unpack(fields))
call('PEXPIRE', key, ttl)
enter(worker, ttl, false, false)
return { 'joined' }
