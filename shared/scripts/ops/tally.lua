-- Count what belongs to no job: adapters loaded, requests refused before they became jobs. A report counts once.
-- KEYS[1] partition prefix
-- ARGV reporter, report (unique, the same when it is sent again), key, field, n, ...
-- returns 1, or 0 when that report is counted already
local last = P .. 'report:' .. ARGV[1]
if call('GET', last) == ARGV[2] then
  return 0
end
for i = 3, #ARGV, 3 do
  call('HINCRBY', P .. ARGV[i], ARGV[i + 1], ARGV[i + 2])
end
call('SET', last, ARGV[2], 'PX', TTL.report)
return 1
