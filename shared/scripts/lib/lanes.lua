-- uses: counters record
-- The lanes of an adapter: a stream for each priority, one beside each for what agents send over their quota (a quarter
-- of their window), and one for what comes back. An entry is its job, its turn (since when it could be claimed; over
-- quota OVER_QUOTA_MS later) and, of a retry, the worker where it failed. Jobs are given by turn, whatever their lane:
-- more urgent ones pass a lane only for as long as they may, so that no job waits behind those that came much later.

local LANES = { LANE.NAMES }
local PASSED_MS = { LANE.PASSED_MS } -- so much longer do a lane's jobs wait than their turns say

local function stream_of(ref, lane)
  return P .. 'stream:' .. ref .. (lane == 'normal' and '' or ':' .. lane)
end

local function streams_of(ref, except)
  local keys = {}
  for _, lane in ipairs(LANES) do
    if lane ~= except then
      keys[#keys + 1] = stream_of(ref, lane)
    end
  end
  return unpack(keys)
end

local function job_in(entry)
  return entry[2][2]
end

-- One from beyond the server's clock, which went back, counts from now.
local function turn_in(entry)
  local turn = tonumber(entry[2][4]) or 0
  return turn <= NOW + TERMS.OVER_QUOTA_MS and turn or NOW
end

-- The first jobs of each lane that has any: { name, entries, at: the next one's index, whole: whether those are all }.
local function heads_of(ref, most)
  local lanes = {}
  local names = call('EXISTS', streams_of(ref, 'normal')) == 0 and { 'normal' } or LANES
  for _, name in ipairs(names) do
    local entries = call('XRANGE', stream_of(ref, name), '-', '+', 'COUNT', most)
    if #entries > 0 then
      lanes[#lanes + 1] = { name = name, entries = entries, at = 1, whole = #entries < most }
    end
  end
  return lanes
end

-- The lane whose first job is next, and when that job's turn is; of all but the one named.
local function next_lane(lanes, except)
  local best, least
  for _, lane in ipairs(lanes) do
    local entry = lane.name ~= except and lane.entries[lane.at]
    local passed_until = entry and turn_in(entry) + PASSED_MS[lane.name]
    if entry and (not least or passed_until < least) then
      best, least = lane, passed_until
    end
  end
  return best, best and turn_in(best.entries[best.at])
end

-- Of a job: since when it could have been claimed or, if that is later, its turn counts.
local function turn_of(id)
  local submitted, due, turn = unpack(call('HMGET', P .. 'job:' .. id, 'submitted_ms', 'due_ms', 'turn_ms'))
  return math.max(number(submitted) or 0, number(due) or 0, number(turn) or 0)
end

local function counted_waiting(job, n)
  add(gauges, 'waiting', job.ref, n)
  add(gauges, 'waiting', '*', n)
  touched[job.ref] = true
end

-- ... are more fields of the entry.
local function enter_lane(job, lane, ...)
  local turn = job.turn or NOW
  job.lane = lane
  job.entry = call('XADD', stream_of(job.ref, lane), '*', 'job', job.id, 'turn', turn, ...)
  entered[job.ref] = math.min(entered[job.ref] or math.huge, turn)
  counted_waiting(job, 1)
end

-- A job that comes for the first time: where agents' jobs of its priority wait, or apart if its agent is over quota,
-- with so many undelivered besides.
local function enter_by_priority(job, undelivered, window)
  if undelivered >= window / 4 then
    job.turn = NOW + TERMS.OVER_QUOTA_MS
    enter_lane(job, job.priority .. LANE.OVER_QUOTA)
  else
    enter_lane(job, job.priority)
  end
end

local function leave_lane(job)
  local key = stream_of(job.ref, job.lane)
  if string.find(job.entry, '^%d+%-%d+$') then
    call('XDEL', key, job.entry)
  end
  if call('XLEN', key) == 0 then
    call('DEL', key)
  end
  counted_waiting(job, -1)
end
