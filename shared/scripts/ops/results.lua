-- Fields of many records in one reply: what an awaiter reads of jobs that ended.
-- KEYS[1] partition prefix
-- ARGV number of fields, field..., id...
-- returns for each id a list of the fields' values, nil where there is none
local fields, found = {}, {}
for i = 1, tonumber(ARGV[1]) do
  fields[i] = ARGV[1 + i]
end
for i = 2 + #fields, #ARGV do
  found[#found + 1] = call('HMGET', P .. 'job:' .. ARGV[i], unpack(fields))
end
return found
