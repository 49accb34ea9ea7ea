-- uses: outage
-- Which workers come by: each does at least once a second.

local PRESENT_MS = 5000

local function note_presence(worker)
  call('ZADD', P .. 'here', NOW, worker)
  if second_turned then
    call('ZREMRANGEBYSCORE', P .. 'here', '-inf', NOW - TTL.here)
    call('PEXPIRE', P .. 'here', TTL.here)
  end
end

local function workers_here()
  return call('ZCOUNT', P .. 'here', NOW - PRESENT_MS, NOW + PRESENT_MS)
end
