-- uses: jobs letters duties view
-- Promote, reap, expire (bounded), and look.
-- KEYS[1] partition prefix
-- ARGV worker, resident refs...
-- returns the view (view.lua)
duties()
conclude()
local residents = {}
for i = 2, #ARGV do
  residents[i - 1] = ARGV[i]
end
return view(residents)
