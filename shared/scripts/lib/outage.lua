-- uses: record
-- Whether the partition was without workers for a while, and whether the server's clock went back.

local SILENCE_MS = 2000 -- of all, though each comes by at least once a second: nobody was there
local LONGEST_MS = 3600000 -- no worker is given a longer lease
local JUMP_MS = 1000 -- that a clock goes back by less is corrected by nobody, and hurts nobody
local MOST_REPAIRED = 2000
local second_turned = false
local lease_in_use = TERMS.LEASE_MS -- the longest

-- Leases that end later than that end a lease from now.
local function cut_short(limit, lease)
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'leases', limit, '+inf', 'LIMIT', 0, MOST_REPAIRED)) do
    call('ZADD', P .. 'leases', NOW + lease, id)
  end
end

-- The server's clock went back: what was set by the clock as it was comes `late` ms too late. Leases end at the latest
-- a lease from now, whoever renews them; what a job waits for counts from now if it was submitted at a time to come;
-- suspects keep their order among themselves, before those that are lost from now on.
local function clock_went_back(lease, late)
  local suspects = call('ZRANGEBYSCORE', P .. 'suspects', NOW + JUMP_MS, '+inf', 'WITHSCORES', 'LIMIT', 0, MOST_REPAIRED)
  for i = 1, #suspects, 2 do
    call('ZADD', P .. 'suspects', math.min(tonumber(suspects[i + 1]) - late, NOW), suspects[i])
  end
  cut_short(NOW + lease, lease)
  for set, field in pairs({ delayed = 'due_ms', deadlines = 'deadline_ms' }) do
    for _, id in ipairs(call('ZRANGEBYSCORE', P .. set, NOW, '+inf', 'LIMIT', 0, MOST_REPAIRED)) do
      local submitted, at, retries = unpack(call('HMGET', P .. 'job:' .. id, 'submitted_ms', field, 'retries'))
      submitted, at = number(submitted) or NOW, number(at)
      local due = at and submitted > NOW and NOW + at - submitted
      if set == 'delayed' and at and not due and retries ~= '0' and at > NOW + 2 * TERMS.BACKOFF_MAX_MS then
        due = NOW
      end
      if due then
        call('ZADD', P .. set, due, id)
        call('HSET', P .. 'job:' .. id, field, due)
      end
    end
  end
end

-- True while leases must not be reaped: nobody was there to renew or reap (the server was down, or all workers), so
-- every owner first gets the longest lease's time to come back; and no longer, whatever the clock has done.
local function in_outage(lease_ms)
  local key = P .. 'reaper'
  local last, calm, lease = string.match(call('GET', key) or '', '^(%d+) (%d+) (%d+)$')
  if not last or tonumber(lease) > LONGEST_MS then -- never written, or not by us
    last, calm, lease = 0, 0, 0
  end
  last, calm = tonumber(last), tonumber(calm)
  local longest = math.max(tonumber(lease), lease_ms or 0) -- 0: nobody has claimed yet
  lease = longest > 0 and longest or TERMS.LEASE_MS
  lease_in_use = lease
  if last > NOW + JUMP_MS then
    clock_went_back(lease, last - NOW)
  elseif NOW - last > math.max(lease / 2, SILENCE_MS) and call('EXISTS', P .. 'leases') == 1 then
    calm = NOW + lease
  end
  calm = math.min(calm, NOW + lease)
  call('SET', key, string.format('%d %d %d', NOW, calm, longest), 'PX', TTL.reaper)
  second_turned = math.floor(last / 1000) ~= math.floor(NOW / 1000)
  if second_turned then
    cut_short(NOW + LONGEST_MS + JUMP_MS, lease) -- of a stranger's making
  end
  return NOW < calm
end

