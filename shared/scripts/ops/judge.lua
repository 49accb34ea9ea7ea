-- Who judges a pending version. A judge that vanished, or died of it, counts against the version: see `deaths`.
-- KEYS[1] pool prefix
-- ARGV op, ref, worker, token, then
--   begin   digest, ms that the mark holds unless renewed
--   renew   ms
--   end     'died', 'unreached' or 'left'; in words why
-- returns {'begun' | 'busy' | 'gone' | 'ended', deaths, who died of it or who is busy}; a token repeated finds its mark
local op, ref, worker, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local MOST_NOTES = 16
local key = P .. 'adapter:' .. ref
local v = call('HMGET', key, 'status', 'digest', 'judging', 'judge_token', 'judging_until_ms', 'judge_deaths',
  'judges_dead')
local status, digest, judging, held = v[1], v[2], v[3] or '', v[4]
local deaths, dead = tonumber(v[6]) or 0, v[7] or ''

local function died(name)
  deaths = deaths + 1
  dead = dead == '' and name or dead .. ' ' .. name
  call('HSET', key, 'judge_deaths', deaths, 'judges_dead', dead)
end

local function unreached(reason)
  local notes = {}
  for _, field in ipairs(call('HKEYS', key)) do
    if string.sub(field, 1, 9) == 'not_here:' then
      notes[#notes + 1] = field
    end
  end
  if #notes >= MOST_NOTES then
    call('HDEL', key, notes[1])
  end
  call('HSET', key, 'not_here:' .. worker, reason)
end

if status ~= 'pending' or (op == 'begin' and digest ~= ARGV[5]) then
  return { 'gone', deaths, dead }
end
local ours = judging == worker and held == token
if op == 'begin' then
  local until_ms, latest = tonumber(v[5]) or 0, NOW + tonumber(ARGV[6])
  if judging ~= '' and not ours then
    if judging ~= worker and until_ms > NOW then
      if until_ms > latest then -- the server's clock went back
        call('HSET', key, 'judging_until_ms', latest)
      end
      return { 'busy', deaths, judging }
    end
    died(judging)
  end
  call('HSET', key, 'judging', worker, 'judge_token', token, 'judging_until_ms', latest)
  call('HDEL', key, 'not_here:' .. worker)
  return { 'begun', deaths, dead }
end
if not ours then
  return { 'gone', deaths, dead }
end
if op == 'renew' then
  call('HSET', key, 'judging_until_ms', NOW + tonumber(ARGV[5]))
  return { 'begun', deaths, dead }
end
call('HDEL', key, 'judging', 'judge_token', 'judging_until_ms')
if ARGV[5] == 'died' then
  died(worker)
elseif ARGV[5] == 'unreached' then
  unreached(ARGV[6])
end
return { 'ended', deaths, dead }
