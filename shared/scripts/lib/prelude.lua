-- Every script begins with this. KEYS[1] is the prefix of all keys it touches; they share one hash tag.
local P = KEYS[1]

-- Something that lorapool does not write: dropped, and counted where an operator can see it.
local function malformed(what)
  redis.pcall('HINCRBY', P .. 'malformed', what, 1)
  redis.pcall('PEXPIRE', P .. 'malformed', TTL.malformed)
end

-- Damage must not stop a script half-way: a key of the wrong type holds nothing of ours, and a counter that is no number
-- has counted nothing; it is dropped, and the command is sent again. Any other error is raised as it was.
local function mended(answer, name, key, ...)
  local why = tostring(answer.err)
  if string.find(why, 'WRONGTYPE', 1, true) then
    redis.call('UNLINK', key)
    malformed('key of the wrong type')
  elseif name == 'HINCRBY' and (string.find(why, 'not an integer', 1, true) or string.find(why, 'overflow', 1, true)) then
    redis.call('HDEL', key, (...))
    malformed('counter that is no number')
  end
  return redis.call(name, key, ...)
end

local send, type = redis.pcall, type -- looked up once: this is run for each command

local function call(...)
  local answer = send(...)
  if type(answer) == 'table' and answer.err then
    return mended(answer, ...)
  end
  return answer
end

-- The only clock: milliseconds of the server.
local function now()
  local t = redis.call('TIME')
  return math.floor(t[1] * 1000 + t[2] / 1000)
end
local NOW = now()
local AT = string.format('%d', NOW) -- as text: a number is printed anew for each command, and slowly
