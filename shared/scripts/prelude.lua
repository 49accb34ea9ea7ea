-- Every script begins with this. KEYS[1] is the prefix of all keys it touches; they share one hash tag.
local P = KEYS[1]
local call = redis.call
local TERMS = {} -- TERMS

-- The only clock: milliseconds of the server.
local function now()
  local t = redis.call('TIME')
  return math.floor(t[1] * 1000 + t[2] / 1000)
end
local NOW = now()
