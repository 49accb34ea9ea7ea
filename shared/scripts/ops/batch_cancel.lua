-- uses: batches
-- Ask for the end of a batch; its holder carries it out.
-- KEYS[1] pool prefix
-- ARGV id
-- returns its status then, nil where there is none
local key = batch_of(ARGV[1])
local status = call('HGET', key, 'status')
if status == 'validating' or status == 'in_progress' then
  status = 'cancelling'
  call('HSET', key, 'status', status, 'cancelling_ms', NOW)
end
return status
