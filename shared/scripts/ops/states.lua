-- KEYS[1] partition prefix
-- ARGV ids
-- returns a state for each, nil where there is no record
local states = {}
for i, id in ipairs(ARGV) do
  states[i] = call('HGET', P .. 'job:' .. id, 'state')
end
return states
