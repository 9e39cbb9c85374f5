-- One line that a script can read: requests, bytes, microseconds, errors, median latency in microseconds.
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("REPORT %d %d %d %d %.0f\n", summary.requests, summary.bytes, summary.duration,
    e.connect + e.read + e.write + e.timeout + e.status, latency:percentile(50)))
end
