-- Who judges a pending version. A judge that vanished, or died of it, counts against the version: see `deaths`.
-- KEYS[1] pool prefix
-- ARGV JUDGE_BEGIN, JUDGE_RENEW or JUDGE_END, which begin as JUDGE; the mark holds so long unless it is renewed; it
--      ends how: 'died', 'unreached' or 'left'
-- returns {'begun' | 'busy' | 'gone' | 'ended', deaths, who died of it or who is busy}; a token repeated finds its mark
local op, ref, worker, token = ARGV[JUDGE.op], ARGV[JUDGE.ref], ARGV[JUDGE.worker], ARGV[JUDGE.token]
local MOST_NOTES = 16
local key = P .. 'adapter:' .. ref
local v = call('HMGET', key, JUDGING.FIELDS)
local status, judging, deaths = v[JUDGING.status], v[JUDGING.judging] or '', tonumber(v[JUDGING.judge_deaths]) or 0
local dead = v[JUDGING.judges_dead] or ''

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

if status ~= 'pending' or (op == 'begin' and v[JUDGING.digest] ~= ARGV[JUDGE_BEGIN.digest]) then
  return { 'gone', deaths, dead }
end
local ours = judging == worker and v[JUDGING.judge_token] == token
if op == 'begin' then
  local until_ms, latest = tonumber(v[JUDGING.judging_until_ms]) or 0, NOW + tonumber(ARGV[JUDGE_BEGIN.holds_ms])
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
  call('HSET', key, 'judging_until_ms', NOW + tonumber(ARGV[JUDGE_RENEW.holds_ms]))
  return { 'begun', deaths, dead }
end
call('HDEL', key, 'judging', 'judge_token', 'judging_until_ms')
if ARGV[JUDGE_END.how] == 'died' then
  died(worker)
elseif ARGV[JUDGE_END.how] == 'unreached' then
  unreached(ARGV[JUDGE_END.why])
end
return { 'ended', deaths, dead }
