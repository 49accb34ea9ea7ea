-- uses: housekeeping isolation presence reach unit_of_work view
-- Promote, reap, expire (bounded), and look.
-- KEYS[1] partition prefix
-- ARGV TICK, resident refs... (with a minus before it: one that this worker cannot reach)
-- returns the view (view.lua)
local residents = residents_of(TICK.WIDTH + 1, #ARGV)
housekeeping()
note_presence(ARGV[TICK.worker])
conclude()
local apart, offered = goes_apart(ARGV[TICK.worker], false)
return view(residents, apart, offered)
