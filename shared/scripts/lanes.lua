-- The lanes of an adapter: a stream for each priority, one beside each for what agents send beyond a quarter of their
-- window (a crowd), and one for what came back. An entry is its job, its turn (since when it could be claimed; a
-- crowd's is CROWD_MS later) and, of a retry, whom it left. Jobs are given by turn, whatever their lane: more urgent
-- ones pass a lane only for as long as they may, so that no job waits behind those that came much later.
local PASSED_MS = { again = 0, high = 0, high_crowd = TERMS.NORMAL_PASSED_MS, normal = TERMS.NORMAL_PASSED_MS,
  normal_crowd = TERMS.NORMAL_PASSED_MS, low = TERMS.LOW_PASSED_MS, low_crowd = TERMS.LOW_PASSED_MS }

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
  return turn <= NOW + TERMS.CROWD_MS and turn or NOW
end

-- The first jobs of each lane that has any: { name, entries, at: the next one's index, read: whether those are all }.
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

-- Whether so many of an agent's jobs in an adapter are more than its share of the window.
local function crowds(waiting, window)
  return waiting >= window / 4
end
