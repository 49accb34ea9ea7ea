-- Where aliases point, where they pointed before, and how they came there: `aliases` holds each one's target,
-- `canaries` the version that a part of its jobs goes to, `before:<alias>` its earlier targets and `moves:<alias>` a log by whose tokens a repeated call is known, latest first.
local KEPT = 32

local function target_of(name)
  return call('HGET', P .. 'aliases', name) or ''
end

-- The ref that a part of its jobs goes to, or ''.
local function canary_of(name)
  return string.match(call('HGET', P .. 'canaries', name) or '', '^%d+ (%S+)$') or ''
end

local function log_move(name, how, from, to, token)
  local words = { string.format('%d', NOW), how, from == '' and '-' or from, to == '' and '-' or to, token }
  call('LPUSH', P .. 'moves:' .. name, table.concat(words, ' '))
  call('LTRIM', P .. 'moves:' .. name, 0, KEPT - 1)
end

-- {outcome, from, to} of the call that brought this token before, or nil.
local function outcome_of(name, token)
  for _, line in ipairs(call('LRANGE', P .. 'moves:' .. name, 0, -1)) do
    local from, to, known = string.match(line, '^%d+ %a+ (%S+) (%S+) (%S+)$')
    if known == token then
      return { 'moved', from == '-' and '' or from, to == '-' and '' or to }
    end
  end
end

local function point(name, from, to, how, token)
  if to == '' then
    call('HDEL', P .. 'aliases', name)
  else
    call('HSET', P .. 'aliases', name, to)
  end
  call('HDEL', P .. 'canaries', name)
  log_move(name, how, from, to, token)
  return { 'moved', from, to }
end

-- Point an alias at a ref ('' deletes it) and remember where it pointed.
local function move_alias(name, to, how, token)
  local from = target_of(name)
  if from ~= '' and from ~= to then
    call('LPUSH', P .. 'before:' .. name, from)
    call('LTRIM', P .. 'before:' .. name, 0, KEPT - 1)
  end
  return point(name, from, to, how, token)
end
