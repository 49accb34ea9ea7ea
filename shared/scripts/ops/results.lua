-- RESULT of many records in one reply: what an awaiter reads of jobs that ended.
-- KEYS[1] partition prefix
-- ARGV id...
-- returns RESULT for each id, nil where there is none
local rows = {}
for i, id in ipairs(ARGV) do
  rows[i] = call('HMGET', P .. 'job:' .. id, RESULT.FIELDS)
end
return rows
