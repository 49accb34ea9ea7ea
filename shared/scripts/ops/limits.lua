-- uses: admission ready wake
-- Set limits of an adapter, or of all together (ref `*`: max_depth alone), and read them.
-- KEYS[1] partition prefix
-- ARGV CHANGE_LIMITS, then PAIR for each limit; an empty value is the default again
-- returns LIMITS, '' where none was set; nil for an adapter never opened
local ref = ARGV[CHANGE_LIMITS.ref]
local key = P .. 'adapter:' .. ref
if ref ~= '*' and not adapter_of(ref).state then
  return nil
end
for at = CHANGE_LIMITS.WIDTH, #ARGV - 1, PAIR.WIDTH do
  local field, value = ARGV[at + PAIR.field], ARGV[at + PAIR.value]
  if value == '' then
    call('HDEL', key, field)
  else
    call('HSET', key, field, value)
  end
end
if ref ~= '*' and #ARGV > CHANGE_LIMITS.WIDTH then
  review({ ref })
  if call('ZSCORE', P .. 'ready', ref) then
    wake(ref)
  end
end
local limits = call('HMGET', key, LIMITS.FIELDS)
for i = 1, LIMITS.WIDTH do
  limits[i] = limits[i] or ''
end
return limits
