-- Dead letters as they stand in the stream `dead`, oldest first.

local function letter_of(entry)
  local letter = {}
  for i = 1, #entry[2], 2 do
    letter[entry[2][i]] = entry[2][i + 1]
  end
  for _, name in ipairs({ 'job', 'ref', 'agent', 'reason', 'message', 'attempts', 'lost' }) do
    letter[name] = letter[name] or ''
  end
  letter.died = tonumber(letter.died_ms) or tonumber(string.match(entry[1], '^%d+'))
  return letter
end

-- Forget what the record and the request were kept for beyond an ordinary end's.
local function drop_letter(entry, id)
  call('XDEL', P .. 'dead', entry)
  call('UNLINK', P .. 'payload:' .. id)
  local key = P .. 'job:' .. id
  if call('HGET', key, 'dead') == entry then
    call('HDEL', key, 'dead')
    if call('PTTL', key) > TERMS.RESULT_TTL_MS then
      call('PEXPIRE', key, TERMS.RESULT_TTL_MS)
    end
  end
end

local function trim_letters()
  local old = NOW - TERMS.DEAD_TTL_MS
  for _, entry in ipairs(call('XRANGE', P .. 'dead', '-', '+', 'COUNT', 16)) do
    local letter = letter_of(entry)
    if letter.died > old then
      return
    end
    drop_letter(entry[1], letter.job)
  end
end
