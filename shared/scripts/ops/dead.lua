-- uses: letters
-- One page of the dead letters, newest first.
-- KEYS[1] partition prefix
-- ARGV DEAD
-- returns {entry id to go on after or '', entry..., }; an entry is LETTER
local LOOK = 500
local ref, after = ARGV[DEAD.ref], ARGV[DEAD.after]
local from = after == '' and '+' or '(' .. after
local wanted, reply, last = tonumber(ARGV[DEAD.wanted]), { '' }, ''
local entries = call('XREVRANGE', P .. 'dead', from, '-', 'COUNT', LOOK)
for i, entry in ipairs(entries) do
  local letter = letter_of(entry)
  if #reply > wanted then
    reply[1] = last
    break
  end
  last = entry[1]
  if ref == '' or letter.ref == ref then
    reply[#reply + 1] = LETTER { id = letter.job, ref = letter.ref, agent = letter.agent, reason = letter.reason,
      message = letter.message, attempts = letter.attempts, lost = letter.lost,
      died_ms = string.format('%d', letter.died), redriven = call('HGET', P .. 'job:' .. letter.job, 'redriven') or '' }
  end
  if i == LOOK then
    reply[1] = last
  end
end
return reply
