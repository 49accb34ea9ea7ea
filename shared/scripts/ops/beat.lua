-- uses: membership
-- A worker is alive. What its totals have grown by since they were last counted is added to the pool's usage, once:
-- by the worker's own memory of what was acknowledged, and by its last beat (same boot) in case that reply was lost.
-- A script, so that a full server does not make its workers look dead; of few calls, since a thousand workers beat.
-- KEYS[1] pool prefix
-- ARGV BEAT (changes are those since an acknowledged beat of that boot), then each TOTAL, then field, value, ...
-- returns {'alive', mark of who serves}, {'again'} for changes of a record that is not there, or
--   {'taken', boot, host, pid} where another boot lives under that name
local worker, boot, ttl, serves = ARGV[BEAT.worker], ARGV[BEAT.boot], tonumber(ARGV[BEAT.ttl_ms]), ARGV[BEAT.serves]
local key, usage = P .. 'worker:' .. worker, P .. 'usage'
local last_total = BEAT.WIDTH + TOTAL.WIDTH * tonumber(ARGV[BEAT.totals])

local asked, summed = { 'boot', 'host', 'pid', 'serves' }, { 'since_ms', 'last_ms', 'open_ms' }
local before_asked, before_summed, totals = #asked, #summed, 0
for at = BEAT.WIDTH, last_total - 1, TOTAL.WIDTH do
  totals = totals + 1
  asked[before_asked + totals] = ARGV[at + TOTAL.name]
  summed[before_summed + totals] = ARGV[at + TOTAL.name]
end
local record = call('HMGET', key, unpack(asked))
local holder, host, pid, served = unpack(record)
holder = holder or ''
if boot ~= '' and holder ~= '' and holder ~= boot then
  return { 'taken', holder, host or '', pid or '' }
end

local known = boot ~= '' and holder == boot
if ARGV[BEAT.scope] == 'changes' and not known then
  return { 'again' }
end
local fields = { 'beat_ms', string.format('%d', NOW) }
if not known or served ~= serves then
  fields = { 'beat_ms', fields[2], 'boot', boot, 'ttl_ms', ttl, 'serves', serves }
end
local sums, up = {}, 0
local used = totals > 0 and call('HMGET', usage, unpack(summed)) or {}
local since, last, open = unpack(used)
for i = 1, totals do
  local at = BEAT.WIDTH + TOTAL.WIDTH * (i - 1)
  local name, total, counted = ARGV[at + TOTAL.name], ARGV[at + TOTAL.total], tonumber(ARGV[at + TOTAL.counted])
  if known then
    counted = math.max(counted, tonumber(record[before_asked + i]) or 0)
  end
  local grown = math.max(0, tonumber(total) - counted)
  if grown > 0 then
    sums[#sums + 1] = name
    sums[#sums + 1] = string.format('%d', (tonumber(used[before_summed + i]) or 0) + grown)
  end
  up = name == 'up_ms' and grown or up
  fields[#fields + 1] = name
  fields[#fields + 1] = total
end

-- For how long any worker was there at all: the time since the last beat of any; if all were silent for longer than a
-- beat lives, only as much of it as this worker had its device.
if totals > 0 then
  local there = NOW - (tonumber(last) or 0)
  if there > ttl then
    there = math.min(there, up)
  end
  if there > 0 then
    sums[#sums + 1] = 'open_ms'
    sums[#sums + 1] = string.format('%d', (tonumber(open) or 0) + there)
  end
  if not since then
    sums[#sums + 1] = 'since_ms'
    sums[#sums + 1] = string.format('%d', NOW - there)
  end
  call('HSET', usage, 'last_ms', string.format('%d', NOW), unpack(sums))
end

for i = last_total + 1, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
call('HSET', key, unpack(fields))
call('PEXPIRE', key, ttl)
return { 'alive', enter(worker, ttl, serves == '1', served == serves) }
