/* SPDX-License-Identifier: BSD-2-Clause
 * Changes a packet as the worker (worker/src/wire/rewrite.rs) and then the kernel's forwarding would: an address and a port, the
 * checksums that cover them, one hop less.
 */
#pragma once
#include "packet.h"

/* The source of a reply, or the destination of a request: what it was and what it becomes. A request to a direct backend (mode
 * "dsr") stays what it is, and `to` says only where it goes.
 */
struct change {
	__u64 from[2], to[2];
	__u16 from_port, to_port;
	_Bool reply, direct;
};

/* Another port in the segment or datagram, which begins at `at`, a constant; and its checksum, which is at `field`. */
static __always_inline _Bool change_port(struct __sk_buff *skb, __u32 at, const struct packet *p, __u32 field,
										 const struct change *c)
{
	__u64 flags = sizeof(__u16) | (p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);
	if (c->from_port == c->to_port)
		return 1;
	if (bpf_l4_csum_replace(skb, field, swap16(c->from_port), swap16(c->to_port), flags))
		return 0;
	__u16 *ports = (void *)(long)skb->data + at;
	if ((void *)(ports + 2) > (void *)(long)skb->data_end)
		return 0;
	if (c->reply)
		ports[0] = swap16(c->to_port);
	else
		ports[1] = swap16(c->to_port);
	return 1;
}

/* One hop less, and nothing else. */
static __always_inline _Bool take_hop(struct __sk_buff *skb, __u32 at, const struct packet *p)
{
	if (p->is_v6) {
		struct ipv6hdr *ip = (void *)(long)skb->data + at;
		if ((void *)(ip + 1) > (void *)(long)skb->data_end)
			return 0;
		ip->hop_limit--;
		return 1;
	}
	struct iphdr *ip = (void *)(long)skb->data + at;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return 0;
	/* As ip_decrease_ttl in net/ip.h does it. */
	__u32 sum = ip->check + swap16(0x0100);
	ip->check = sum + (sum >= 0xffff);
	ip->ttl--;
	return 1;
}

/* If the first change fails nothing is changed, and no later one fails: the first has made the headers writable, and they lie in the
 * packet, as was looked at when it was read. No static function, as read_packet.
 */
__attribute__((noinline)) int rewrite(struct __sk_buff *skb, __u32 at, struct packet *p, struct change *c)
{
	if (!p || !c || at > ETH_HLEN)
		return 0;
	if (c->direct)
		return take_hop(skb, at, p);
	__u64 *from = c->from, *to = c->to;
	const _Bool reply = c->reply;
	__u32 field = p->transport + (p->protocol == IPPROTO_TCP ? __builtin_offsetof(struct tcphdr, check)
															 : __builtin_offsetof(struct udphdr, check));
	/* UDP: 0 means "none" and stays, and a sum of 0 is sent as all ones (RFC 768). */
	__u64 flags = BPF_F_PSEUDO_HDR | (p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);
	if (p->is_v6) {
		if (!change_port(skb, at + sizeof(struct ipv6hdr), p, field, c))
			return 0;
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
	if (!change_port(skb, at + sizeof(struct iphdr), p, field, c))
		return 0;
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
