-- uses: membership
-- A worker takes its name, unless another boot lives under it. It does not take jobs yet.
-- KEYS[1] pool prefix
-- ARGV JOIN (a boot that may be displaced, or ''), field, value, ...
-- returns {'joined'}, or {'taken', HOLDER...} of who lives under it
local worker, boot, ttl = ARGV[JOIN.worker], ARGV[JOIN.boot], tonumber(ARGV[JOIN.ttl_ms])
local key = P .. 'worker:' .. worker
local v = call('HMGET', key, HOLDER.FIELDS)
local holder = v[HOLDER.boot] or ''
if holder ~= '' and holder ~= boot and holder ~= ARGV[JOIN.displaced] then
  return { 'taken', unpack(HOLDER { boot = holder, host = v[HOLDER.host] or '', pid = v[HOLDER.pid] or '', place = v[HOLDER.place] or '',
    beat_ms = v[HOLDER.beat_ms] or '', ttl_ms = v[HOLDER.ttl_ms] or '' }) }
end
if holder ~= boot then
  call('DEL', key)
end
local fields = { 'boot', boot, 'ttl_ms', ttl, 'beat_ms', string.format('%d', NOW), 'serves', '0' }
for i = JOIN.WIDTH + 1, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
call('HSET', key, unpack(fields))
call('PEXPIRE', key, ttl)
enter(worker, ttl, false, false)
return { 'joined' }
