-- What is kept of a version while it is judged (judge.lua).

local function forget_judgement(key)
  local gone = { 'judging', 'judge_token', 'judging_until_ms', 'judge_deaths', 'judges_dead' }
  for _, field in ipairs(call('HKEYS', key)) do
    if string.sub(field, 1, 9) == 'not_here:' then
      gone[#gone + 1] = field
    end
  end
  call('HDEL', key, unpack(gone))
end
