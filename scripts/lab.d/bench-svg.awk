# Draws what bench-stats.awk has read: for each metric the ratio of each path to the kernel's DNAT, a bar as long as the
# median, a line from the lowest to the highest round. One drawing, a column for each family.

function text(x, y, s, style) { printf "<text x=\"%d\" y=\"%d\" %s>%s</text>\n", x, y, style, s }
function plain(s) { gsub(/[*]/, "", s); return s }
function at(r) { return r > MOST ? SCALE * MOST : SCALE * r }
function row(x, y, f, m, p,    n, v, list, mid) {
	list = ratios(f, m, p, "nft")
	n = sort(list, v)
	if (!n) { text(x + 4, y + 11, "–", ""); return }
	mid = median(list)
	printf "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"12\" fill=\"%s\"/>\n", x, y, at(mid), p == "loaded" ? "#1f6feb" : p == "queue" ? "#79a8ee" : "#9aa0a6"
	printf "<path d=\"M%d %dH%d\" stroke=\"#c0392b\" stroke-width=\"2\"/>\n", x + at(v[1]), y + 6, x + at(v[n])
	text(x + at(v[n] > mid ? v[n] : mid) + 5, y + 11, sprintf("%.2f", mid), "")
}
END {
	LEFT = 170; COLUMN = 300; SCALE = 110; MOST = 2; ROW = 16; GAP = 34; TOP = 40
	height = TOP + 20
	for (i = 1; i <= M; i++) height += GAP + ROW * (P - 1)
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\">\n", LEFT + COLUMN * F, height
	printf "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
	text(8, 20, "Ratio to the kernel&apos;s nft DNAT in the same run; for p50 less is better. Red: lowest to highest of " rounds " rounds.", "")
	y = TOP
	for (i = 1; i <= M; i++) {
		text(8, y + 20, title[metric[i]], "font-weight=\"bold\"")
		for (f = 1; f <= F; f++) {
			x = LEFT + COLUMN * (f - 1)
			text(x, y + 20, "IPv" family[f], "")
			printf "<path d=\"M%d %dV%d\" stroke=\"#333\" stroke-dasharray=\"3 3\"/>\n", x + SCALE, y + 24, y + 26 + ROW * (P - 1)
		}
		y += 28
		for (p = 1; p <= P; p++) {
			if (path[p] == "nft") continue
			text(16, y + 11, path[p] == "plain" ? "no balancer" : plain(name[path[p]]), path[p] == "loaded" ? "font-weight=\"bold\"" : "")
			for (f = 1; f <= F; f++) row(LEFT + COLUMN * (f - 1), y, family[f], metric[i], path[p])
			y += ROW
		}
		y += GAP - 28
	}
	print "</svg>"
}
