-- uses: duties isolation presence reach unit_of_work view
-- Promote, reap, expire (bounded), and look.
-- KEYS[1] partition prefix
-- ARGV worker, resident refs... (with a minus before it: one that this worker cannot reach)
-- returns the view (view.lua)
local residents = residents_of(2, #ARGV)
duties()
note_presence(ARGV[1])
conclude()
local apart, offered = goes_apart(ARGV[1], false)
return view(residents, apart, offered)
