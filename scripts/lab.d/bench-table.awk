# Markdown tables of what bench-stats.awk has read. A cell without a measurement is "-".

function thousands(x,    s) {
	if (x == "-") return x
	s = sprintf("%.0f", x)
	while (match(s, /[0-9][0-9][0-9][0-9]($|,)/)) s = substr(s, 1, RSTART) "," substr(s, RSTART + 1)
	return s
}
# The median ratio, and the lowest and highest.
function ratio(f, m, p, base,    n, v, list) {
	list = ratios(f, m, p, base)
	n = sort(list, v)
	return n ? sprintf("%.2f (%.2f–%.2f)", median(list), v[1], v[n]) : "-"
}
function head(first, t, i) {
	t = "| " first " |"
	for (i = 1; i <= M; i++) t = t " " title[metric[i]] " |"
	print t
	t = "|---|"
	for (i = 1; i <= M; i++) t = t "---|"
	print t
}
END {
	B = split("nft,nginx,haproxy,before,nftdsr", base, ",")
	for (f = 1; f <= F; f++) {
		printf "\n**IPv%s, medians of %d rounds**\n\n", family[f], rounds
		head("data path")
		for (p = 1; p <= P; p++) {
			t = "| " name[path[p]] " |"
			for (i = 1; i <= M; i++) t = t " " thousands(median(all[family[f], metric[i], path[p]])) " |"
			print t
		}
		for (b = 1; b <= B; b++) {
			if (("," paths ",") !~ ("," base[b] ",")) continue
			printf "\nIPv%s, ratio to %s: median, lowest and highest of the rounds (for p50 less is better)\n\n", family[f], name[base[b]]
			head("data path")
			for (p = 1; p <= P; p++) {
				if (path[p] == base[b] || (base[b] != "nft" && path[p] !~ (base[b] == "nftdsr" ? "^direct$" : "^(loaded|queue)$"))) continue
				t = "| " name[path[p]] " |"
				for (i = 1; i <= M; i++) t = t " " ratio(family[f], metric[i], path[p], base[b]) " |"
				print t
			}
		}
	}
	print ""
	for (f = 1; f <= F; f++) for (i = 1; i <= M; i++) for (p = 1; p <= P; p++)
		if ((k = family[f] SUBSEP metric[i] SUBSEP path[p]) in void)
			printf "- void: %d runs of %s, IPv%s, %s: %d errors (socket errors, timeouts, other statuses, lost datagrams)\n", void[k], name[path[p]], family[f], title[metric[i]], errors[k]
}
