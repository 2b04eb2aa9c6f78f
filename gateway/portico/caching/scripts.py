"""What Redis does in one step, in Lua. Each script has two keys: an entry and its lease, in one slot of a cluster.

A lease is a string: `L` and the token of the gateway that has it, `E` and the error that its call of the model ended
in, or `N`: the answer is none to be shared. Writes are `pcall`s where Redis may be full: it takes none then, but still
answers.
"""

ERROR, NOTHING = b"E", b"N"

FIND = """
local entry = redis.pcall('GET', KEYS[1])
if type(entry) == 'string' then return {'entry', entry} end
local lease = redis.pcall('GET', KEYS[2])
if type(lease) == 'string' then
  local kind = string.sub(lease, 1, 1)
  if kind == 'L' and lease ~= 'L' .. ARGV[1] then return {'theirs'} end
  if kind == 'E' and ARGV[3] == 'waited' then return {'error', string.sub(lease, 2)} end
  if kind == 'N' and ARGV[3] == 'waited' then return {'nothing'} end
end
if redis.pcall('SET', KEYS[2], 'L' .. ARGV[1], 'PX', ARGV[2]).ok then return {'ours'} end
return {'full'}
"""
"""(token, lease in ms, whether the caller has waited) → what is kept, or who asks the model. A gateway that asks again
for what it has the lease of has forgotten that, and gets it anew.
"""

FULFIL = """
local kept = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if redis.call('GET', KEYS[2]) == 'L' .. ARGV[1] then redis.call('DEL', KEYS[2]) end
return kept
"""
"""(token, entry, its lifetime in ms). Keeps the entry and ends the lease if it is still this one."""

END = """
if redis.call('GET', KEYS[2]) ~= 'L' .. ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[2]) end
return redis.pcall('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
"""
"""(token, what to tell those who wait, if anything, and for how long in ms). Ends the lease if it is still this one."""

RENEW = """
if redis.call('GET', KEYS[2]) ~= 'L' .. ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
"""
"""(token, lease in ms)."""
