-- What wrk sends, and how it tells what came of it: a line "RESULT {json}".
--
-- wrk -s wrk.lua URL -- BODY [OFFSET LENGTH FORM FIRST TOGETHER]
-- BODY is a file. With an OFFSET, the bytes there are replaced in each request by its number, as text or as a float;
-- TOGETHER requests in a row have the same.

local head, tail, form, number, together, sent

local function written(value)
  if form == "text" then return string.format("%d", value) end
  local ffi = require("ffi")
  return ffi.string(ffi.new("float[1]", value), 4)
end

local function numbered()
  local value = number + math.floor(sent / together)
  sent = sent + 1
  return head .. written(value) .. tail
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method, wrk.body = "POST", file:read("*a")
  file:close()
  if args[2] then
    local whole = wrk.format()
    local from = #whole - #wrk.body + tonumber(args[2])
    head, tail = whole:sub(1, from), whole:sub(from + tonumber(args[3]) + 1)
    form, number, together, sent = args[4], tonumber(args[5]), tonumber(args[6]), 0
    request = numbered
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"answers": %d, "seconds": %.6f, "bytes": %d, "failed": %d, "p50": %.4f, "p99": %.4f}\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
