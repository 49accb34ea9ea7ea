-- uses: letters
-- One page of the dead letters, newest first.
-- KEYS[1] partition prefix
-- ARGV ref ('' all), entry id to go on after ('' from the newest), how many
-- returns {entry id to go on after or '', entry..., }; an entry is {id, ref, agent, reason, message, attempts, lost,
--      died_ms, id of the job it was redriven as or ''}
local LOOK = 500
local from = ARGV[2] == '' and '+' or '(' .. ARGV[2]
local wanted, reply, last = tonumber(ARGV[3]), { '' }, ''
local entries = call('XREVRANGE', P .. 'dead', from, '-', 'COUNT', LOOK)
for i, entry in ipairs(entries) do
  local letter = letter_of(entry)
  if #reply > wanted then
    reply[1] = last
    break
  end
  last = entry[1]
  if ARGV[1] == '' or letter.ref == ARGV[1] then
    reply[#reply + 1] = { letter.job, letter.ref, letter.agent, letter.reason, letter.message, letter.attempts,
      letter.lost, string.format('%d', letter.died), call('HGET', P .. 'job:' .. letter.job, 'redriven') or '' }
  end
  if i == LOOK then
    reply[1] = last
  end
end
return reply
