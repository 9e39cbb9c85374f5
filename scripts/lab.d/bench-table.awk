# Input: ROUND FAMILY METRIC PATH VALUE ERRORS, one line a measurement. Output: Markdown tables.
# paths, families: comma lists in the order wanted. A cell without a measurement is "-".

function median(list, n,    v, i, j, t) {
	n = split(list, v, " ")
	if (n == 0) return "-"
	for (i = 2; i <= n; i++) {
		t = v[i] + 0
		for (j = i - 1; j >= 1 && v[j] + 0 > t; j--) v[j + 1] = v[j]
		v[j + 1] = t
	}
	return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
function thousands(x,    s) {
	if (x == "-") return x
	s = sprintf("%.0f", x)
	while (match(s, /[0-9][0-9][0-9][0-9]($|,)/)) s = substr(s, 1, RSTART) "," substr(s, RSTART + 1)
	return s
}
# How far the rounds of one cell lie apart, in percent of its median: the widest of a row is its noise.
function spread(list, m,    v, i, n, lo, hi) {
	n = split(list, v, " "); lo = hi = v[1] + 0
	for (i = 2; i <= n; i++) { if (v[i] + 0 < lo) lo = v[i] + 0; if (v[i] + 0 > hi) hi = v[i] + 0 }
	return m > 0 ? 100 * (hi - lo) / m : 0
}
# Ratio to the base path, round by round, then the median: a slow minute of the machine hits both and cancels.
function ratio(f, m, p, base,    r, list) {
	for (r = 1; r <= rounds; r++)
		if ((r, f, m, p) in value && (r, f, m, base) in value && value[r, f, m, base] > 0)
			list = list " " value[r, f, m, p] / value[r, f, m, base]
	list = median(list)
	return list == "-" ? list : sprintf("%.2f", list)
}
function head(first, t, i) {
	t = "| " first " |"
	for (i = 1; i <= M; i++) t = t " " title[metric[i]] " |"
	print t
	t = "|---|"
	for (i = 1; i <= M; i++) t = t "---|"
	print t
}
BEGIN {
	M = split("keepalive new bulk p50", metric, " ")
	title["keepalive"] = "keep-alive req/s"; title["new"] = "new connections/s"
	title["bulk"] = "bulk Mbit/s"; title["p50"] = "p50 µs"
	name["plain"] = "plain routing to one backend, no balancer"; name["nft"] = "kernel nft DNAT (jhash map)"
	name["nginx"] = "nginx stream"; name["haproxy"] = "HAProxy TCP"; name["loaded"] = "loaded"
	P = split(paths, path, ","); F = split(families, family, ",")
}
{
	value[$1, $2, $3, $4] = $5; all[$2, $3, $4] = all[$2, $3, $4] " " $5; errors[$2, $4] += $6
	if ($1 > rounds) rounds = $1
}
END {
	for (f = 1; f <= F; f++) {
		printf "\n**IPv%s, medians of %d rounds**\n\n", family[f], rounds
		head("data path")
		for (p = 1; p <= P; p++) {
			t = "| " name[path[p]] " |"; s = 0
			for (i = 1; i <= M; i++) {
				k = family[f] SUBSEP metric[i] SUBSEP path[p]; v = (k in all) ? median(all[k]) : "-"
				t = t " " thousands(v) " |"
				if (v != "-") { d = spread(all[k], v); if (d >= wide[metric[i]]) wide[metric[i]] = d }
			}
			print t
		}
		split("nft nginx", bases, " ")
		for (b = 1; b <= 2; b++) {
			if (("," paths ",") !~ ("," bases[b] ",")) continue
			printf "\nIPv%s, ratio to %s (for p50 less is better)\n\n", family[f], name[bases[b]]
			head("data path")
			for (p = 1; p <= P; p++) {
				t = "| " name[path[p]] " |"
				for (i = 1; i <= M; i++) t = t " " ratio(family[f], metric[i], path[p], bases[b]) " |"
				print t
			}
		}
	}
	printf "\nWidest distance between rounds of one cell, in percent of its median:"
	for (i = 1; i <= M; i++) if (metric[i] in wide) printf "%s %s %.0f", n++ ? "," : "", title[metric[i]], wide[metric[i]]
	print "."
	for (f = 1; f <= F; f++) for (p = 1; p <= P; p++)
		if (errors[family[f], path[p]] > 0)
			printf "Errors: IPv%s %s: %d (socket errors, timeouts, statuses other than 2xx)\n", family[f], name[path[p]], errors[family[f], path[p]]
}
