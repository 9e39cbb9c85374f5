/* SPDX-License-Identifier: BSD-2-Clause
 * The way out, by the routes and rules that the kernel would go by.
 */
#pragma once
#include "rewrite.h"

#define AF_INET 2
#define AF_INET6 10

struct way {
	__u32 interface;
	struct bpf_redir_neigh next;
};

/* Whether the way leads to this address itself, and through no router. */
static __always_inline _Bool ends_at(const struct way *way, const struct packet *p, const __u64 address[2])
{
	if (!p->is_v6)
		return way->next.ipv4_nh == (__u32)(address[1] >> 32);
	__u64 next[2];
	__builtin_memcpy(next, way->next.ipv6_nh, 16);
	return next[0] == address[0] && next[1] == address[1];
}

/* Whether the packet can leave once it is changed: there is a way, and it is no longer than that way takes. A direct backend's
 * packet gets to it by its link address alone, so it goes as one to the backend's address would. No static function, as read_packet.
 */
__attribute__((noinline)) int find_way(struct __sk_buff *skb, struct packet *p, struct change *c, struct way *way)
{
	if (!p || !c || !way)
		return 0;
	const __u64 *source = c->reply ? c->to : p->source, *destination = c->reply ? p->destination : c->to;
	struct bpf_fib_lookup fib = {
		.l4_protocol = p->protocol,
		.sport = swap16(c->reply ? c->to_port : p->source_port),
		.dport = swap16(c->reply ? p->destination_port : c->to_port),
		/* With a length the kernel compares it with the route's MTU, that of a learned path included. */
		.tot_len = p->segment,
		.ifindex = skb->ifindex,
	};
	if (p->segment > 0xffff)
		return 0;
	if (p->is_v6) {
		fib.family = AF_INET6;
		fib.flowinfo = p->flow_info;
		__builtin_memcpy(fib.ipv6_src, source, 16);
		__builtin_memcpy(fib.ipv6_dst, destination, 16);
	} else {
		fib.family = AF_INET;
		fib.tos = p->tos;
		fib.ipv4_src = source[1] >> 32;
		fib.ipv4_dst = destination[1] >> 32;
	}
	if (bpf_fib_lookup(skb, &fib, sizeof(fib), fib_flags) != BPF_FIB_LKUP_RET_SUCCESS)
		return 0;
	way->interface = fib.ifindex;
	way->next.nh_family = fib.family;
	__builtin_memcpy(way->next.ipv6_nh, fib.ipv6_dst, 16);
	return !c->direct || ends_at(way, p, c->to);
}
