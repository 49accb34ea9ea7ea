-- uses: admission ready wake
-- Set limits of an adapter, or of all together (ref `*`: max_depth alone), and read them.
-- KEYS[1] partition prefix
-- ARGV ref, field, value, ...   (max_depth, max_inflight, agent_window, weight; an empty value is the default again)
-- returns {max_depth, max_inflight, agent_window, weight}, '' where none was set; nil for an adapter never opened
local ref = ARGV[1]
local key = P .. 'adapter:' .. ref
if ref ~= '*' and not adapter_of(ref).state then
  return nil
end
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    call('HDEL', key, ARGV[i])
  else
    call('HSET', key, ARGV[i], ARGV[i + 1])
  end
end
if ref ~= '*' and #ARGV > 1 then
  review({ ref })
  if call('ZSCORE', P .. 'ready', ref) then
    wake(ref)
  end
end
local found = call('HMGET', key, 'max_depth', 'max_inflight', 'agent_window', 'weight')
for i = 1, 4 do
  found[i] = found[i] or ''
end
return found
