-- The audit stream: who did what to the pool.

-- `id` is unique to the act: the same again is there already.
local function add_to_trail(id, who, what, on, outcome, note)
  local key = P .. 'audit'
  for _, entry in ipairs(call('XREVRANGE', key, '+', '-', 'COUNT', TERMS.MAX_JOBS)) do
    if entry[2][2] == id then
      return
    end
  end
  call('XADD', key, 'MAXLEN', '~', TERMS.AUDIT_MAX, '*', 'id', id, 'who', who, 'what', what, 'on', on,
    'outcome', outcome, 'note', note)
end
