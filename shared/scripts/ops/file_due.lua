-- Which files' time is over.
-- KEYS[1] pool prefix
-- ARGV how many at most
-- returns ids, the longest overdue first
return call('ZRANGEBYSCORE', P .. 'files_due', '-inf', NOW, 'LIMIT', 0, ARGV[1])
