-- Clients' inboxes: one entry tells of all the jobs of a client that this call ends.

local notices = {} -- by client: job id, state or answer, ...

local function add_notice(client, id, text)
  local notice = notices[client] or {}
  notices[client] = notice
  notice[#notice + 1] = id
  notice[#notice + 1] = text
end

-- Whether a client leaves its inbox unread: what is written since it last read is counted in bytes.
local function is_unread(client, notice)
  local key, bytes = P .. 'unread:' .. client, 0
  for _, text in ipairs(notice) do
    bytes = bytes + #text
  end
  local sum = call('INCRBY', key, bytes)
  if sum == bytes then
    call('PEXPIRE', key, TERMS.INBOX_TTL_MS)
  end
  return sum > TERMS.INBOX_BYTES
end

-- To one that nobody reads go plain states, and few entries stay.
local function write_notices()
  for client, notice in pairs(notices) do
    local key, most = P .. 'inbox:' .. client, TERMS.INBOX_MAX
    if is_unread(client, notice) then
      most = TERMS.INBOX_UNREAD
      for i = 2, #notice, 2 do
        notice[i] = string.match(notice[i], '^%l+')
      end
    end
    call('XADD', key, 'MAXLEN', '~', most, '*', unpack(notice))
    call('PEXPIRE', key, TERMS.INBOX_TTL_MS)
  end
end
