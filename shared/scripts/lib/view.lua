-- uses: housekeeping reach record
-- The bounded view that the affinity policy sees, as one text (cheap to build and to read):
-- LOOKED, then WAITING for each adapter (records.py); "-" is none.

local function least_due()
  local least = '-'
  for _, name in ipairs({ 'delayed', 'leases', 'deadlines' }) do
    local head = call('ZRANGE', P .. name, 0, 0, 'WITHSCORES')
    local due = number(head[2])
    if due and (least == '-' or due < least) then
      least = due
    end
  end
  return least == '-' and '-' or string.format('%d', least)
end

-- Whatever time a stranger wrote of it, its jobs may be sound; where it has none, the claim that finds that takes it out.
local function made_ready_now(ref)
  call('ZADD', P .. 'ready', NOW, ref)
  malformed('time in ready')
  return AT
end

-- Longest waiting, least served, and the residents: refs in `ready`, each once, and since when; none that is away.
local function candidates(residents)
  local refs, since = {}, {}
  local last = TERMS.VIEW_SIZE + away_count - 1
  local oldest = call('ZRANGE', P .. 'ready', 0, last, 'WITHSCORES')
  for i = 1, #oldest, 2 do
    local ref = oldest[i]
    if not is_name(ref) then
      call('ZREM', P .. 'ready', ref)
      malformed('member of ready')
    elseif not away[ref] then
      refs[#refs + 1] = ref
      since[ref] = number(oldest[i + 1]) and oldest[i + 1] or made_ready_now(ref)
    end
  end
  if #oldest <= 2 * last then
    return refs, since -- that is all of them
  end
  local others = {}
  for _, ref in ipairs(call('ZRANGE', P .. 'served', 0, last)) do
    if not away[ref] then
      others[#others + 1] = ref
    end
  end
  for _, ref in ipairs(residents) do
    others[#others + 1] = ref
  end
  if #others == 0 then
    return refs, since
  end
  local scores = call('ZMSCORE', P .. 'ready', unpack(others))
  for i, ref in ipairs(others) do
    if scores[i] and not since[ref] and is_name(ref) then
      refs[#refs + 1] = ref
      since[ref] = number(scores[i]) and scores[i] or made_ready_now(ref)
    end
  end
  return refs, since
end

-- `behind`: more is due than one call may do. `apart`: this worker is to claim nothing but suspects. `offered`: it may
-- take some, once it holds nothing.
local function view(residents, apart, offered)
  local parts = LOOKED { now_ms = AT, next_due_ms = least_due(), ready = call('ZCARD', P .. 'ready'),
    behind = more_is_due and 1 or 0, apart = apart and 1 or 0, suspects = offered and call('ZCARD', P .. 'suspects') or 0 }
  local refs, since = candidates(residents)
  if #refs > 0 then
    local waiting = call('HMGET', P .. 'waiting', unpack(refs))
    local served = call('ZMSCORE', P .. 'served', unpack(refs))
    local n = #parts
    for i, ref in ipairs(refs) do
      local from = tonumber(since[ref]) <= NOW + TERMS.OVER_QUOTA_MS and since[ref] or AT -- else by a clock that went back
      local depth = string.format('%d', number(waiting[i]) or 0) -- a word, whatever stands there: others come after it
      parts[n + WAITING.ref], parts[n + WAITING.since_ms] = ref, from
      parts[n + WAITING.depth], parts[n + WAITING.served] = depth, served[i] or '0'
      n = n + WAITING.WIDTH
    end
  end
  return table.concat(parts, ' ')
end
