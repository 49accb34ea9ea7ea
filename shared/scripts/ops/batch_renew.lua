-- uses: batches
-- Hold a batch for longer; also after the lease has run out, if nobody else took it.
-- KEYS[1] pool prefix
-- ARGV BATCH_RENEW
-- returns {status, now in ms}, nil where it is another's, or gone
local id = ARGV[BATCH_RENEW.id]
if not holds_batch(id, ARGV[BATCH_RENEW.token]) then
  return nil
end
call('HSET', batch_of(id), 'lease_until_ms', NOW + tonumber(ARGV[BATCH_RENEW.lease_ms]))
return { call('HGET', batch_of(id), 'status'), AT }
