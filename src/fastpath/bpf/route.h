/* SPDX-License-Identifier: BSD-2-Clause
 * The way out, by the routes and rules that the kernel would go by.
 */
#pragma once
#include "packet.h"

#define AF_INET 2
#define AF_INET6 10

struct way {
	__u32 interface;
	struct bpf_redir_neigh next;
};

/* Whether the packet can leave with these addresses and ports (the source's in the upper half): there is a way, and it is no longer than that way takes. */
static __always_inline _Bool find_way(struct __sk_buff *skb, const struct packet *p, const __u64 source[2],
									  const __u64 destination[2], __u32 ports, struct way *way)
{
	struct bpf_fib_lookup fib = {
		.l4_protocol = p->protocol,
		.sport = swap16((__u16)(ports >> 16)),
		.dport = swap16((__u16)ports),
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
	return 1;
}

/* Whether the way leads to this address itself, and through no router. */
static __always_inline _Bool ends_at(const struct way *way, const struct packet *p, const __u64 address[2])
{
	if (!p->is_v6)
		return way->next.ipv4_nh == (__u32)(address[1] >> 32);
	__u64 next[2];
	__builtin_memcpy(next, way->next.ipv6_nh, 16);
	return next[0] == address[0] && next[1] == address[1];
}
