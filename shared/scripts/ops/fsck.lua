-- uses: checks unit_of_work
-- One step of a check of the whole partition: about a hundred keys, one adapter, or one set. Repairs structure and the
-- gauges that follow from it, never counters. True on a live system: a step sees the partition at one instant.
-- KEYS[1] partition prefix
-- ARGV where to go on ('' at first): PHASE, a position, and the adapters still to look at, with spaces between
-- returns {where to go on or '', damage, subject, damage, subject...}
local words = {}
for word in string.gmatch(ARGV[1], '%S+') do
  words[#words + 1] = word
end
local phase, position = words[1] or 'keys', words[2] or '0'
local onward

local NEXT = { keys = 'delayed 0', delayed = 'suspects 0', suspects = 'deadlines 0', deadlines = 'leases 0',
  leases = 'adapters 0', adapters = 'sums 0', sums = '' }

-- Keys of one kind: their names after the prefix. A name may come twice; a check may be repeated.
local function scan(pattern)
  local cursor, keys = unpack(call('SCAN', position, 'MATCH', P .. pattern, 'COUNT', 100))
  local names = {}
  for i, key in ipairs(keys) do
    names[i] = string.sub(key, #P + 1)
  end
  position = tostring(cursor)
  return names
end

if phase == 'keys' then
  for _, name in ipairs(scan('*')) do
    check_key(name)
  end
elseif phase == 'leases' then
  check_leases()
  position = '0'
elseif phase == 'adapters' and words[3] then
  check_adapter(words[3])
  table.remove(words, 3)
elseif phase == 'adapters' then
  for _, name in ipairs(scan('adapter:*')) do
    if name ~= 'adapter:*' then
      words[#words + 1] = string.sub(name, 9)
    end
  end
  words[1], words[2] = phase, position
elseif phase == 'sums' then
  check_sums()
  position = '0'
else
  position = check_set(phase, position)
end
conclude()
if words[3] then
  onward = table.concat(words, ' ')
elseif position == '0' then
  onward = NEXT[phase]
else
  onward = phase .. ' ' .. position
end
report[1] = onward
return report
