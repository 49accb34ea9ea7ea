-- uses: admission record
-- Submit a dead letter's request again, as a new job; the dead one stays as it is. Once: a repeat finds the new job.
-- KEYS[1] partition prefix
-- ARGV REDRIVE: of the dead letter, of the new job
-- returns {'new' | 'same', id of the new job, its state ('' when its record is gone)} or {word}: 'missing' (no such job),
--      'alive' (not a dead letter), 'gone' (its request is not kept), or a refusal as of enqueue; with the ref
local job = load_job(ARGV[REDRIVE.id])
if not job then
  return { 'missing' }
end
local key = P .. 'job:' .. job.id
local dead, redriven, fingerprint = unpack(call('HMGET', key, 'dead', 'redriven', 'fingerprint'))
if redriven then
  return { 'same', redriven, call('HGET', P .. 'job:' .. redriven, 'state') or '', job.ref }
end
local payload = call('GET', P .. 'payload:' .. job.id)
if job.state ~= 'failed' or not dead then
  return { 'alive', job.state }
elseif not payload then
  return { 'gone' }
end
local adapter = adapter_of(job.ref)
local deadline = job.deadline and job.deadline - job.submitted or 0 -- counted anew
local fresh = { id = ARGV[REDRIVE.new_id], fingerprint = fingerprint, ref = job.ref, agent = job.agent, client = job.client,
  priority = job.priority, stream = job.stream, seed = job.seed, cost = job.cost, key = job.key }
local refused = refusal(adapter, fresh)
if refused then
  return { refused, '', '', job.ref, job.agent }
end
local state = accept(fresh, adapter, 0, deadline, payload, 'redrive_of', job.id)
call('HSET', key, 'redriven', fresh.id)
announce()
return { 'new', fresh.id, state, job.ref }
