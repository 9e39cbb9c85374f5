/* SPDX-License-Identifier: BSD-2-Clause
 * Changes a packet as the worker (worker/src/wire/rewrite.rs) and then the kernel's forwarding would: one address, the checksums
 * that cover it, one hop less.
 */
#pragma once
#include "packet.h"

/* `from` becomes `to`: the source of a reply, the destination of a request. Either all is changed or nothing. */
static __always_inline _Bool rewrite(struct __sk_buff *skb, __u32 at, const struct packet *p, const __u64 from[2], const __u64 to[2],
									 _Bool reply)
{
	__u32 field = p->transport + (p->protocol == IPPROTO_TCP ? __builtin_offsetof(struct tcphdr, check)
															 : __builtin_offsetof(struct udphdr, check));
	/* UDP: 0 means "none" and stays, and a sum of 0 is sent as all ones (RFC 768). */
	__u64 flags = BPF_F_PSEUDO_HDR | (p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);
	if (p->is_v6) {
		__s64 sum = bpf_csum_diff(from, 16, to, 16, 0);
		if (bpf_l4_csum_replace(skb, field, 0, sum, flags))
			return 0;
		struct ipv6hdr *ip = (void *)(long)skb->data + at;
		if ((void *)(ip + 1) > (void *)(long)skb->data_end)
			return 0;
		__builtin_memcpy(reply ? &ip->saddr : &ip->daddr, to, 16);
		ip->hop_limit--;
		return 1;
	}
	__u32 old = from[1] >> 32, new = to[1] >> 32;
	if (bpf_l4_csum_replace(skb, field, old, new, flags | sizeof(new)))
		return 0;
	struct iphdr *ip = (void *)(long)skb->data + at;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return 0;
	/* RFC 1624, equation 3. */
	__u32 sum = (__u16)~ip->check + (__u16)~old + (__u16)~(old >> 16) + (__u16)new + (new >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (__u16)~((sum & 0xffff) + (sum >> 16));
	/* A hop less, as ip_decrease_ttl in net/ip.h does it. */
	sum += swap16(0x0100);
	ip->check = sum + (sum >= 0xffff);
	ip->ttl--;
	if (reply)
		ip->saddr = new;
	else
		ip->daddr = new;
	return 1;
}
