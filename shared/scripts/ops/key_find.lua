-- The API key whose secret has that sha256.
-- KEYS[1] partition prefix
-- ARGV digest
-- returns its record's fields and values, flat; empty where there is none, or it was revoked
local name = call('HGET', P .. 'secrets', ARGV[1])
local fields = name and call('HGETALL', P .. 'key:' .. name) or {}
local found = {}
for i = 1, #fields, 2 do
  found[fields[i]] = fields[i + 1]
end
return found.digest == ARGV[1] and found.revoked_ms == '' and fields or {}
