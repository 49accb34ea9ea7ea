-- uses: record
-- Markers that idle workers sleep on: a hint, never the truth.

-- The latest of the adapter's last workers that is idle; not the one named.
local function idle_holder(ref, except)
  local names, keys = {}, {}
  for name in string.gmatch(call('HGET', P .. 'last_worker', ref) or '', '%S+') do
    names[#names + 1], keys[#keys + 1] = name, P .. 'idle:' .. name
  end
  local idle = #keys > 0 and call('MGET', unpack(keys)) or {}
  for i, name in ipairs(names) do
    if idle[i] and name ~= except then
      return name
    end
  end
end

local function wake_anyone()
  if call('ZADD', P .. 'wake', 'NX', NOW, '1') == 1 then
    call('PEXPIRE', P .. 'wake', TTL.wake)
  end
end

-- For a job of that adapter: a worker that likely holds the adapter, if one is idle and answers within 20 ms, else any.
local function wake(ref, except)
  local worker = idle_holder(ref, except)
  if worker then
    local key = P .. 'wake:' .. worker
    if call('ZADD', key, 'NX', NOW, '1') == 1 then
      call('PEXPIRE', key, TTL.wake_worker)
      return
    end
    if math.abs(NOW - (number(call('ZSCORE', key, '1')) or 0)) < 20 then
      return
    end
  end
  wake_anyone()
end
