/* SPDX-License-Identifier: BSD-2-Clause
 * Reads a packet. What is unusual is not read: the worker's parser (worker/src/wire/parse.rs) will.
 */
#pragma once
#include "maps.h"
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#define PACKET_HOST 0 /* linux/if_packet.h: addressed to this host's link address */
#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define ACK 0x10
/* ::ffff:0:0/96 in the second word of an address (RFC 4291 §2.5.5.2). */
#define MAPPED 0xffff0000u

struct packet {
	__u64 source[2], destination[2]; /* as in tables: IPv4 as ::ffff:a.b.c.d */
	__u16 source_port, destination_port; /* host byte order, as are all numbers */
	__u32 network, transport; /* offsets in the frame */
	__u32 length;  /* bytes of the IP packet */
	__u32 segment; /* bytes of the largest IP packet that leaves */
	__u32 end, acknowledged; /* TCP: number behind the last byte, acknowledgement */
	__u8 protocol, flags, is_v6, tos;
	_Bool payload; /* TCP: it carries data */
	__u32 flow_info;
};

/* Whether an address is of this family. A worker that was taken over may name one of the other in its table. */
static __always_inline _Bool is_of_family(const __u64 address[2], _Bool v6)
{
	return (address[0] == 0 && (__u32)address[1] == MAPPED) != v6;
}

/* Whether the frame holds this packet and at most what Ethernet adds to the shortest ones (60 bytes without checksum). */
static __always_inline _Bool fits(const struct __sk_buff *skb, __u32 at, __u32 length)
{
	return skb->len == at + length || (skb->len > at + length && skb->len <= ETH_ZLEN);
}

static __always_inline _Bool read_v4(const struct __sk_buff *skb, void *data, void *end, __u32 at, struct packet *p)
{
	struct iphdr *ip = data + at;
	if ((void *)(ip + 1) > end)
		return 0;
	/* No options, no fragment, no reserved bit. */
	if (*(__u8 *)ip != 0x45 || ip->frag_off & swap16(0xbfff) || ip->ttl < 2)
		return 0;
	__u16 *word = (__u16 *)ip;
	__u32 sum = 0;
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += word[i];
	sum = (sum & 0xffff) + (sum >> 16);
	if ((sum & 0xffff) + (sum >> 16) != 0xffff)
		return 0;
	/* Sources that a router drops: this network, loopback, multicast and above (net/ipv4/route.c, ip_route_input_slow). */
	__u8 first = ip->saddr & 0xff;
	if (first == 0 || first == 127 || first >= 224)
		return 0;
	p->source[0] = p->destination[0] = 0;
	p->source[1] = MAPPED | (__u64)ip->saddr << 32;
	p->destination[1] = MAPPED | (__u64)ip->daddr << 32;
	p->length = swap16(ip->tot_len);
	p->protocol = ip->protocol;
	p->tos = ip->tos;
	p->transport = at + sizeof(*ip);
	return fits(skb, at, p->length);
}

static __always_inline _Bool read_v6(const struct __sk_buff *skb, void *data, void *end, __u32 at, struct packet *p)
{
	struct ipv6hdr *ip = data + at;
	if ((void *)(ip + 1) > end)
		return 0;
	if (ip->version != 6 || ip->hop_limit < 2)
		return 0;
	__builtin_memcpy(p->source, &ip->saddr, 16);
	__builtin_memcpy(p->destination, &ip->daddr, 16);
	if ((p->source[0] == 0 && (__u32)p->source[1] == MAPPED) || (p->destination[0] == 0 && (__u32)p->destination[1] == MAPPED))
		return 0;
	/* Sources of multicast, of one link, loopback and none. */
	__u16 first = swap16((__u16)p->source[0]);
	if (first >= 0xff00 || (first & 0xffc0) == 0xfe80 || (p->source[0] == 0 && (__u32)p->source[1] == 0))
		return 0;
	p->length = sizeof(*ip) + swap16(ip->payload_len);
	p->protocol = ip->nexthdr;
	p->flow_info = *(__u32 *)ip & swap32(0x0fffffff);
	p->is_v6 = 1;
	p->transport = at + sizeof(*ip);
	return fits(skb, at, p->length);
}

static __always_inline _Bool read_tcp(const struct __sk_buff *skb, void *data, void *end, __u32 at, struct packet *p)
{
	struct tcphdr *tcp = data + at;
	if ((void *)(tcp + 1) > end)
		return 0;
	__u32 headers = p->transport - p->network + tcp->doff * 4;
	if (tcp->doff < 5 || headers > p->length)
		return 0;
	p->source_port = swap16(tcp->source);
	p->destination_port = swap16(tcp->dest);
	p->flags = ((__u8 *)tcp)[13];
	p->acknowledged = swap32(tcp->ack_seq);
	p->end = swap32(tcp->seq) + (p->length - headers) + !!(p->flags & SYN) + !!(p->flags & FIN);
	p->segment = skb->gso_size ? headers + skb->gso_size : p->length;
	p->payload = p->length > headers;
	return 1;
}

static __always_inline _Bool read_udp(const struct __sk_buff *skb, void *data, void *end, __u32 at, struct packet *p)
{
	struct udphdr *udp = data + at;
	if ((void *)(udp + 1) > end)
		return 0;
	__u32 length = swap16(udp->len);
	if (length < sizeof(*udp) || length > p->length - (p->transport - p->network) || skb->gso_size)
		return 0;
	/* Required in IPv6 (RFC 8200 §8.1). */
	if (p->is_v6 && !udp->check)
		return 0;
	p->source_port = swap16(udp->source);
	p->destination_port = swap16(udp->dest);
	p->segment = p->length;
	return 1;
}

/* Reads the packet whose IP header is at this place. No static function: the kernel verifies it by itself (Linux 5.12) and once, and
 * the rest of the program does not multiply with its paths.
 */
__attribute__((noinline)) int read_packet(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	if (!p || at > ETH_HLEN)
		return 0;
	_Bool v6 = skb->protocol == swap16(ETH_P_IPV6);
	__u32 wanted = at + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) + sizeof(struct tcphdr);
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return 0;
	/* Headers may lie in fragments of the buffer; what is read is asked for once. Not a byte more: of a segment that is shared with its
	 * sender the kernel makes a copy for it, and data lies behind the headers.
	 */
	if ((void *)(long)skb->data + wanted > (void *)(long)skb->data_end && skb->len > skb->data_end - skb->data)
		bpf_skb_pull_data(skb, skb->len < wanted ? skb->len : wanted);
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	p->network = at;
	if (skb->protocol == swap16(ETH_P_IP)) {
		if (!read_v4(skb, data, end, at, p))
			return 0;
		at += sizeof(struct iphdr);
	} else if (skb->protocol == swap16(ETH_P_IPV6)) {
		if (!read_v6(skb, data, end, at, p))
			return 0;
		at += sizeof(struct ipv6hdr);
	} else
		return 0;
	switch (p->protocol) {
	case IPPROTO_TCP:
		return read_tcp(skb, data, end, at, p);
	case IPPROTO_UDP:
		return read_udp(skb, data, end, at, p);
	}
	return 0;
}
