-- A name → the record it means: an exact ref, then an alias (given case-folded), then an id's active version.
-- KEYS[1] pool prefix
-- ARGV name, name case-folded
-- returns the record's fields and values, flat; empty when nothing has that name
local ref = ARGV[1]
if not string.find(ref, '@', 1, true) then
  ref = call('HGET', P .. 'aliases', ARGV[2])
  if not ref then
    local version = call('HGET', P .. 'active', ARGV[1])
    if not version then
      return {}
    end
    ref = ARGV[1] .. '@' .. version
  end
end
return call('HGETALL', P .. 'adapter:' .. ref)
