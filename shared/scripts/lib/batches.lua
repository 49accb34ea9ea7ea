-- Batches: one holder at a time, under the token of its lease. Whoever has lost that writes nothing any more.

local LOOKED_AT = 1000 -- open batches, of one call
local FAR_MS = 3600000 -- no lease and no pause lasts so long: one that does is of a clock that went back

local function batch_of(id)
  return P .. 'batch:' .. id
end

local function holds_batch(id, token)
  return token ~= '' and call('HGET', batch_of(id), 'lease') == token
end

-- Until when nobody may take it, nil if anybody may.
local function taken_until(text)
  local at = tonumber(text) or 0
  return at > NOW and at <= NOW + FAR_MS and at or nil
end

-- Enter an id in the list of all and in its agent's own, by time.
local function list_newest(kind, id, agent)
  local own = P .. kind .. '_of:' .. agent
  call('ZADD', P .. kind, 'NX', NOW, id)
  call('ZADD', own, 'NX', NOW, id)
  call('PEXPIRE', own, 2 * TTL.batch)
end
