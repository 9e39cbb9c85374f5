-- Asks at a bounded rate, and writes once a second how many answers there were so far. wrk ... URL -- FILE MILLISECONDS
local answers, written, file, pause = 0, 0, nil, 0

local function write()
  local out = io.open(file, "w")
  if out then
    out:write(answers, "\n")
    out:close()
  end
end

init = function(args)
  file, pause = args[1], tonumber(args[2])
end

delay = function()
  return math.random(0, 2 * pause)
end

response = function()
  answers = answers + 1
  local now = os.time()
  if now ~= written then
    written = now
    write()
  end
end

done = function(summary)
  local e = summary.errors
  io.write(string.format("REPORT %d connect=%d read=%d write=%d timeout=%d status=%d\n", summary.requests, e.connect,
    e.read, e.write, e.timeout, e.status))
end
