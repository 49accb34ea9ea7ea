-- Adapters that the worker which asks cannot reach: it names them among its residents, with a minus before them.
local away, away_count = {}, 0

-- The residents among those arguments; the others are `away` from now on.
local function residents_of(first, last)
  local here = {}
  for i = first, last do
    local ref = ARGV[i]
    if string.sub(ref, 1, 1) == '-' then
      away[string.sub(ref, 2)] = true
      away_count = away_count + 1
    else
      here[#here + 1] = ref
    end
  end
  return here
end
