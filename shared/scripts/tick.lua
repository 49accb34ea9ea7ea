-- uses: jobs letters duties suspects view
-- Promote, reap, expire (bounded), and look.
-- KEYS[1] partition prefix
-- ARGV worker, resident refs...
-- returns the view (view.lua)
duties()
note_presence(ARGV[1])
conclude()
local apart, offered = goes_apart(ARGV[1], false)
local residents = {}
for i = 2, #ARGV do
  residents[i - 1] = ARGV[i]
end
return view(residents, apart, offered)
