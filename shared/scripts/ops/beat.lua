-- uses: membership
-- A worker is alive. What its totals have grown by since they were last counted is added to the pool's usage, once:
-- by the worker's own memory of what was acknowledged, and by its last beat (same boot) in case that reply was lost.
-- A script, so that a full server does not make its workers look dead; of few calls, since a thousand workers beat.
-- KEYS[1] pool prefix
-- ARGV worker, boot, ttl_ms, '1' if it takes jobs, 'all' or 'changes' (since an acknowledged beat of that boot),
--   number of totals, (name, total, counted)..., field, value, ...
-- returns {'alive', mark of who serves}, {'again'} for changes of a record that is not there, or
--   {'taken', boot, host, pid} where another boot lives under that name
local HEAD = 6
local worker, boot, ttl, serves = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local key, usage = P .. 'worker:' .. worker, P .. 'usage'
local totals = tonumber(ARGV[6])

local asked, summed = { 'boot', 'host', 'pid', 'serves' }, { 'since_ms', 'last_ms', 'open_ms' }
for i = 1, totals do
  local name = ARGV[HEAD + 3 * i - 2]
  asked[4 + i] = name
  summed[3 + i] = name
end
local record = call('HMGET', key, unpack(asked))
local holder = record[1] or ''
if boot ~= '' and holder ~= '' and holder ~= boot then
  return { 'taken', holder, record[2] or '', record[3] or '' }
end

local known = boot ~= '' and holder == boot
if ARGV[5] == 'changes' and not known then
  return { 'again' }
end
local fields = { 'beat_ms', string.format('%d', NOW) }
if not known or record[4] ~= serves then
  fields = { 'beat_ms', fields[2], 'boot', boot, 'ttl_ms', ttl, 'serves', serves }
end
local sums, up = {}, 0
local used = totals > 0 and call('HMGET', usage, unpack(summed)) or {}
for i = 1, totals do
  local at = HEAD + 3 * i - 2
  local name, total, counted = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  if known then
    counted = math.max(counted, tonumber(record[4 + i]) or 0)
  end
  local grown = math.max(0, tonumber(total) - counted)
  if grown > 0 then
    sums[#sums + 1] = name
    sums[#sums + 1] = string.format('%d', (tonumber(used[3 + i]) or 0) + grown)
  end
  up = name == 'up_ms' and grown or up
  fields[#fields + 1] = name
  fields[#fields + 1] = total
end

-- For how long any worker was there at all: the time since the last beat of any; if all were silent for longer than a
-- beat lives, only as much of it as this worker had its device.
if totals > 0 then
  local there = NOW - (tonumber(used[2]) or 0)
  if there > ttl then
    there = math.min(there, up)
  end
  if there > 0 then
    sums[#sums + 1] = 'open_ms'
    sums[#sums + 1] = string.format('%d', (tonumber(used[3]) or 0) + there)
  end
  if not used[1] then
    sums[#sums + 1] = 'since_ms'
    sums[#sums + 1] = string.format('%d', NOW - there)
  end
  call('HSET', usage, 'last_ms', string.format('%d', NOW), unpack(sums))
end

for i = HEAD + 1 + 3 * totals, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
call('HSET', key, unpack(fields))
call('PEXPIRE', key, ttl)
return { 'alive', enter(worker, ttl, serves == '1', record[4] == serves) }
