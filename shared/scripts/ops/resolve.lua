-- A name → the record it means: an exact ref, then an alias (given case-folded), then an id's active version.
-- KEYS[1] pool prefix
-- ARGV RESOLVE: as it was given, and case-folded
-- returns the record's fields and values, flat, of an alias with its `canary` as well; empty when nothing has that name
local name = ARGV[RESOLVE.name]
local ref, canary = name, nil
if not string.find(ref, '@', 1, true) then
  ref = call('HGET', P .. 'aliases', ARGV[RESOLVE.folded])
  if not ref then
    local version = call('HGET', P .. 'active', name)
    if not version then
      return {}
    end
    ref = name .. '@' .. version
  else
    canary = call('HGET', P .. 'canaries', ARGV[RESOLVE.folded])
  end
end
local fields = call('HGETALL', P .. 'adapter:' .. ref)
if canary and #fields > 0 then
  fields[#fields + 1] = 'canary'
  fields[#fields + 1] = canary
end
return fields
