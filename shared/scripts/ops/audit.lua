-- uses: trail
-- Add what somebody did to the audit stream, once.
-- KEYS[1] partition prefix
-- ARGV AUDIT
-- returns 1
add_to_trail(ARGV[AUDIT.id], ARGV[AUDIT.who], ARGV[AUDIT.what], ARGV[AUDIT.on], ARGV[AUDIT.outcome], ARGV[AUDIT.note])
return 1
