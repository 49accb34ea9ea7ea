-- uses: counters lanes record
-- Which adapters are claimable (`ready`) and which take part in `served`: what follows from their jobs.

-- When the turn of an adapter's next job is.
local function waits_since(ref)
  local _, turn = next_lane(heads_of(ref, 1))
  return turn or NOW
end

local function add_all(key, how, scores)
  if #scores > 0 and how then
    call('ZADD', key, how, unpack(scores))
  elseif #scores > 0 then
    call('ZADD', key, unpack(scores))
  end
end

local function drop_all(key, members)
  if #members > 0 then
    call('ZREM', key, unpack(members))
  end
end

-- Which adapters with jobs are claimable. `heads`: of those just claimed, the next job's turn if that is known, or true.
local function review_ready(refs, waiting, running, adapters, heads)
  local since, earlier, fresh, out = {}, {}, {}, {}
  local function enter(scores, score, ref)
    scores[#scores + 1] = score
    scores[#scores + 1] = ref
  end
  for i, ref in ipairs(refs) do
    local state, cap = adapters[i][1], number(adapters[i][2]) or 0
    if waiting[i] <= 0 or state ~= 'open' and state ~= 'closed' or cap > 0 and running[i] >= cap then
      out[#out + 1] = ref
    elseif heads[ref] then
      enter(since, heads[ref] == true and waits_since(ref) or heads[ref], ref)
    elseif entered[ref] then
      enter(earlier, entered[ref], ref)
    else
      enter(fresh, NOW, ref)
    end
  end
  add_all(P .. 'ready', nil, since)
  add_all(P .. 'ready', 'LT', earlier)
  add_all(P .. 'ready', 'NX', fresh)
  drop_all(P .. 'ready', out)
end

-- Which take part in `served`. Who enters is lifted to the least of those present: idling earns no credit.
local function review_served(refs, waiting, running, adapters)
  local had, ranks, out = call('ZMSCORE', P .. 'served', unpack(refs)), {}, {}
  local least = call('ZRANGE', P .. 'served', 0, 0, 'WITHSCORES')[2]
  for i, ref in ipairs(refs) do
    local weight, served = number(adapters[i][3]) or 1, number(had[i])
    local charge = (charges[ref] or 0) / (weight > 1e-9 and weight or 1)
    if waiting[i] + running[i] > 0 then
      if not served or charge ~= 0 then
        served = served or math.max(number(adapters[i][4]) or 0, number(least) or 0)
        ranks[#ranks + 1] = math.max(0, served + charge)
        ranks[#ranks + 1] = ref
      end
    elseif served then
      out[#out + 1] = ref
      call('HSET', P .. 'adapter:' .. ref, 'served', math.max(0, served + charge))
    end
  end
  add_all(P .. 'served', nil, ranks)
  drop_all(P .. 'served', out)
end

local function gauges_of(key, refs)
  local values = call('HMGET', P .. key, unpack(refs))
  for i = 1, #refs do
    values[i] = number(values[i]) or 0
  end
  return values
end

-- What follows from adapters' waiting and running jobs.
local function review(refs, heads)
  if #refs == 0 then
    return
  end
  local waiting, running, adapters = gauges_of('waiting', refs), gauges_of('running', refs), {}
  for i, ref in ipairs(refs) do
    adapters[i] = call('HMGET', P .. 'adapter:' .. ref, 'state', 'max_inflight', 'weight', 'served')
  end
  review_ready(refs, waiting, running, adapters, heads or {})
  review_served(refs, waiting, running, adapters)
end
