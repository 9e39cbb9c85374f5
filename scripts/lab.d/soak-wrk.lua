-- Asks at a bounded rate, and writes now and then how many answers there were so far. wrk ... URL -- FILE MILLISECONDS
local answers, file, pause = 0, nil, 0

local function write()
  local out = io.open(file .. ".new", "w")
  if out then
    out:write(answers, "\n")
    out:close()
    os.rename(file .. ".new", file) -- or else a reader would find it empty now and then
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
  if answers % 16 == 0 then
    write()
  end
end

done = function(summary)
  local e = summary.errors
  io.write(string.format("REPORT %d connect=%d read=%d write=%d timeout=%d status=%d\n", summary.requests, e.connect,
    e.read, e.write, e.timeout, e.status))
end
