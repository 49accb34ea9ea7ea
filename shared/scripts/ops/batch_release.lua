-- uses: batches
-- Give a batch back, so that another may take it after a while; say why, if there is a reason.
-- KEYS[1] pool prefix
-- ARGV BATCH_RELEASE
-- returns 1, or 0 where it is another's
local id = ARGV[BATCH_RELEASE.id]
if not holds_batch(id, ARGV[BATCH_RELEASE.token]) then
  return 0
end
call('HSET', batch_of(id), 'lease', '', 'holder', '', 'trouble', ARGV[BATCH_RELEASE.trouble],
  'lease_until_ms', NOW + tonumber(ARGV[BATCH_RELEASE.pause_ms]))
return 1
