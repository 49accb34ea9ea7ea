-- uses: letters
-- Drop dead letters, oldest first, a bounded number a call; their jobs keep their answers.
-- KEYS[1] partition prefix
-- ARGV ref ('' all), least age in ms, entry id to go on after ('' from the oldest)
-- returns {entry id to go on after or '', how many were dropped}
local LOOK = 200
local from = ARGV[3] == '' and '-' or '(' .. ARGV[3]
local newest, dropped, last = NOW - tonumber(ARGV[2]), 0, ''
local entries = call('XRANGE', P .. 'dead', from, '+', 'COUNT', LOOK)
for _, entry in ipairs(entries) do
  local letter = letter_of(entry)
  if letter.died > newest then
    return { '', dropped }
  end
  if ARGV[1] == '' or letter.ref == ARGV[1] then
    drop_letter(entry[1], letter.job)
    dropped = dropped + 1
  end
  last = entry[1]
end
return { #entries == LOOK and last or '', dropped }
