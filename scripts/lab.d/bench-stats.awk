# Input: ROUND FAMILY METRIC PATH VALUE ERRORS, one line a measurement; one with errors is void.
# paths, families, metrics: comma lists in the order wanted. What bench-table.awk and bench-svg.awk have in common.

# The sorted numbers of a list, in `sorted`; how many.
function sort(list, sorted,    n, i, j, t) {
	n = split(list, sorted, " ")
	for (i = 2; i <= n; i++) {
		t = sorted[i] + 0
		for (j = i - 1; j >= 1 && sorted[j] + 0 > t; j--) sorted[j + 1] = sorted[j]
		sorted[j + 1] = t
	}
	return n
}
function median(list,    n, v) {
	n = sort(list, v)
	if (n == 0) return "-"
	return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
# Ratios to the base path, round by round: a slow minute of the machine hits both and cancels.
function ratios(f, m, p, base,    r, list) {
	for (r = 1; r <= rounds; r++)
		if ((r, f, m, p) in value && (r, f, m, base) in value && value[r, f, m, base] > 0)
			list = list " " value[r, f, m, p] / value[r, f, m, base]
	return list
}
BEGIN {
	M = split(metrics, metric, ",")
	title["keepalive"] = "keep-alive req/s"; title["new"] = "new connections/s"
	title["bulk"] = "bulk Mbit/s"; title["p50"] = "p50 µs"; title["udp"] = "UDP datagrams/s"
	name["plain"] = "plain routing to one backend, no balancer"; name["nft"] = "kernel nft DNAT (jhash map)"
	name["nginx"] = "nginx stream"; name["haproxy"] = "HAProxy TCP"; name["loaded"] = "**loaded**"
	name["queue"] = "loaded --fast off"; name["before"] = "loaded before"
	name["direct"] = "loaded, mode dsr"; name["nftdsr"] = "nft, link address by jhash"
	P = split(paths, path, ","); F = split(families, family, ",")
}
{
	if ($1 > rounds) rounds = $1
	if ($6 > 0) { errors[$2, $3, $4] += $6; void[$2, $3, $4]++; next }
	value[$1, $2, $3, $4] = $5; all[$2, $3, $4] = all[$2, $3, $4] " " $5
}
