-- uses: letters
-- Drop dead letters, oldest first, a bounded number a call; their jobs keep their answers.
-- KEYS[1] partition prefix
-- ARGV PURGE_DEAD
-- returns {entry id to go on after or '', how many were dropped}
local LOOK = 200
local ref, after = ARGV[PURGE_DEAD.ref], ARGV[PURGE_DEAD.after]
local from = after == '' and '-' or '(' .. after
local newest, dropped, last = NOW - tonumber(ARGV[PURGE_DEAD.min_age_ms]), 0, ''
local entries = call('XRANGE', P .. 'dead', from, '+', 'COUNT', LOOK)
for _, entry in ipairs(entries) do
  local letter = letter_of(entry)
  if letter.died > newest then
    return { '', dropped }
  end
  if ref == '' or letter.ref == ref then
    drop_letter(entry[1], letter.job)
    dropped = dropped + 1
  end
  last = entry[1]
end
return { #entries == LOOK and last or '', dropped }
