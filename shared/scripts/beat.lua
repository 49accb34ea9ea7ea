-- uses: membership
-- A worker is alive. What its totals have grown by since they were last counted is added to the pool's usage, once:
-- by the worker's own memory of what was acknowledged, and by its last beat (same boot) in case that reply was lost.
-- A script, so that a full server does not make its workers look dead.
-- KEYS[1] pool prefix
-- ARGV worker, boot, ttl_ms, '1' if it takes jobs, number of totals, (name, total, counted)..., field, value, ...
-- returns {'alive', mark of who serves}, or {'taken', boot, host, pid} where another boot lives under that name
local HEAD = 5
local worker, boot, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local key, usage = P .. 'worker:' .. worker, P .. 'usage'
local totals = tonumber(ARGV[5])

local asked = { 'boot', 'host', 'pid' }
for i = 1, totals do
  asked[3 + i] = ARGV[HEAD + 3 * i - 2]
end
local last_beat = call('HMGET', key, unpack(asked))
local holder = last_beat[1] or ''
if boot ~= '' and holder ~= '' and holder ~= boot then
  return { 'taken', holder, last_beat[2] or '', last_beat[3] or '' }
end

local up = 0
local fields = { 'boot', boot, 'ttl_ms', ttl, 'beat_ms', string.format('%d', NOW) }
for i = 1, totals do
  local at = HEAD + 3 * i - 2
  local name, total, counted = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  if boot ~= '' and holder == boot then
    counted = math.max(counted, tonumber(last_beat[3 + i]) or 0)
  end
  local grown = math.max(0, tonumber(total) - counted)
  if grown > 0 then
    call('HINCRBY', usage, name, string.format('%d', grown))
  end
  up = name == 'up_ms' and grown or up
  fields[#fields + 1] = name
  fields[#fields + 1] = total
end

-- For how long any worker was there at all: the time since the last beat of any; if all were silent for longer than a
-- beat lives, only as much of it as this worker had its device.
if totals > 0 then
  local last = tonumber(call('HGET', usage, 'last_ms')) or 0
  local there = NOW - last
  if there > ttl then
    there = math.min(there, up)
  end
  if there > 0 then
    call('HINCRBY', usage, 'open_ms', string.format('%d', there))
  end
  call('HSETNX', usage, 'since_ms', string.format('%d', NOW - there))
  call('HSET', usage, 'last_ms', string.format('%d', NOW))
end

for i = HEAD + 1 + 3 * totals, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
call('HSET', key, unpack(fields))
call('PEXPIRE', key, ttl)
return { 'alive', enter(worker, ttl, ARGV[4] == '1') }
