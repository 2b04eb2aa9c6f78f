"""What Redis does in one step, in Lua. Each script has two keys: an entry and its lease, in one slot of a cluster.

A lease is a string: `L` and the token of the gateway that has it, or `E` and the error that its call of the model ended
in. Writes are `pcall`s where Redis may be full: it frees no space then, but still answers.
"""

FIND = """
local entry = redis.pcall('GET', KEYS[1])
if type(entry) == 'string' then return {'entry', entry} end
local lease = redis.pcall('GET', KEYS[2])
if type(lease) == 'string' then
  local kind = string.sub(lease, 1, 1)
  if kind == 'L' then return {'theirs'} end
  if kind == 'E' and ARGV[3] == 'waited' then return {'error', string.sub(lease, 2)} end
end
if redis.pcall('SET', KEYS[2], 'L' .. ARGV[1], 'PX', ARGV[2]).ok then return {'ours'} end
return {'full'}
"""
"""(token, lease in ms, whether the caller has waited) → what is kept, or who asks the model."""

FULFIL = """
local kept = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if redis.call('GET', KEYS[2]) == 'L' .. ARGV[1] then redis.call('DEL', KEYS[2]) end
return kept
"""
"""(token, entry, its lifetime in ms). Keeps the entry and ends the lease if it is still this one."""

END = """
if redis.call('GET', KEYS[2]) ~= 'L' .. ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[2]) end
return redis.pcall('SET', KEYS[2], 'E' .. ARGV[2], 'PX', ARGV[3])
"""
"""(token, error or nothing, how long to tell it in ms). Ends the lease if it is still this one."""

RENEW = """
if redis.call('GET', KEYS[2]) ~= 'L' .. ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
"""
"""(token, lease in ms)."""
