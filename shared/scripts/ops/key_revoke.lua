-- uses: trail
-- Revoke an API key: it submits nothing from now on, and what it submitted goes on.
-- KEYS[1] partition prefix
-- ARGV KEY_REVOKE
-- returns its digest (also where it was revoked already), or nil for an unknown one
local name = ARGV[KEY_REVOKE.name]
local key = P .. 'key:' .. name
local digest, revoked = unpack(call('HMGET', key, 'digest', 'revoked_ms'))
if not digest then
  return nil
elseif revoked == '' then
  call('HDEL', P .. 'secrets', digest)
  call('HSET', key, 'revoked_ms', AT)
  call('PEXPIRE', key, TERMS.AGENT_TTL_MS)
  add_to_trail(ARGV[KEY_REVOKE.id], ARGV[KEY_REVOKE.by], 'key revoked', name, 'done', '')
end
return digest
