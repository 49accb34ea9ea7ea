-- Count what belongs to no job: adapters loaded, requests refused before they became jobs. A report counts once.
-- KEYS[1] partition prefix
-- ARGV TALLY (a report is unique, and the same when it is sent again), then each COUNTED
-- returns 1, or 0 when that report is counted already
local last, report = P .. 'report:' .. ARGV[TALLY.reporter], ARGV[TALLY.report]
if call('GET', last) == report then
  return 0
end
for at = TALLY.WIDTH, #ARGV - 1, COUNTED.WIDTH do
  call('HINCRBY', P .. ARGV[at + COUNTED.key], ARGV[at + COUNTED.field], ARGV[at + COUNTED.n])
end
call('SET', last, report, 'PX', TTL.report)
return 1
