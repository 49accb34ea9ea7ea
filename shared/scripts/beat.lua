-- A worker is alive. What its totals have grown by since they were last counted is added to the pool's usage, once:
-- by the worker's own memory of what was acknowledged, and by its last beat (same boot) in case that reply was lost.
-- A script, so that a full server does not make its workers look dead.
-- KEYS[1] pool prefix
-- ARGV worker, boot, ttl_ms, number of totals, (name, total, counted)..., field, value, ...
-- returns 1
local worker, boot, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local key, usage = P .. 'worker:' .. worker, P .. 'usage'
local totals = tonumber(ARGV[4])
local up = 0
local same = boot ~= '' and call('HGET', key, 'boot') == boot

for i = 5, 4 + 3 * totals, 3 do
  local counted = tonumber(ARGV[i + 2])
  if same then
    counted = math.max(counted, tonumber(call('HGET', key, ARGV[i])) or 0)
  end
  local grown = math.max(0, tonumber(ARGV[i + 1]) - counted)
  if grown > 0 then
    call('HINCRBY', usage, ARGV[i], string.format('%d', grown))
  end
  up = ARGV[i] == 'up_ms' and grown or up
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

local fields = { 'boot', boot, 'ttl_ms', ttl }
for i = 5, 4 + 3 * totals, 3 do
  fields[#fields + 1] = ARGV[i]
  fields[#fields + 1] = ARGV[i + 1]
end
for i = 5 + 3 * totals, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
call('HSET', key, unpack(fields))
call('PEXPIRE', key, ttl)
call('SADD', P .. 'workers', worker)
return 1
