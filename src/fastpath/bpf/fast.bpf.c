/* SPDX-License-Identifier: BSD-2-Clause
 * The kernel path. Sends packets of known flows on, at tc ingress, as the worker would; it decides nothing, and whatever is
 * unusual goes on to the rules and the worker's queue. Writes nothing but packets, counters and reports: the table is the
 * worker's.
 */
#include "rewrite.h"
#include "route.h"
#include "steer.h"
#include "table.h"

#define MISS -1 /* TC_ACT_UNSPEC: on to the next filter, then to the stack */

/* What a packet of a flow is to the worker. */
enum weight {
	UNUSUAL,  /* the worker has to see it */
	TELLING,  /* it may move the flow's state: the worker has to hear of it */
	SILENT,
};

static __always_inline enum weight weigh(const struct packet *p, __u8 state, _Bool reply)
{
	if (p->protocol == IPPROTO_UDP) {
		if (state == TABLE_STATE_DATAGRAM)
			return SILENT;
		return state == TABLE_STATE_UNANSWERED || state == TABLE_STATE_REPLIED ? TELLING : UNUSUAL;
	}
	__u8 flags = p->flags & (SYN | FIN | RST | ACK);
	if (flags & SYN && !(reply && flags == (SYN | ACK)))
		return UNUSUAL;
	switch (state) {
	case TABLE_STATE_ESTABLISHED:
	case TABLE_STATE_CLIENT_DONE:
	case TABLE_STATE_BACKEND_DONE:
		return flags == ACK ? SILENT : TELLING;
	case TABLE_STATE_HALF_OPEN:
	case TABLE_STATE_ANSWERED:
	case TABLE_STATE_CLOSING:
		return TELLING;
	}
	return UNUSUAL;
}

/* Seconds for which a flow in this state goes on unseen. */
static __always_inline __u32 fresh(const struct backend *b, __u8 state)
{
	switch (state) {
	case TABLE_STATE_HALF_OPEN:
	case TABLE_STATE_ANSWERED:
	case TABLE_STATE_UNANSWERED:
		return b->fresh_half_open;
	case TABLE_STATE_CLOSING:
		return b->fresh_closing;
	case TABLE_STATE_DATAGRAM:
	case TABLE_STATE_REPLIED:
		return b->fresh_udp;
	}
	return b->fresh_tcp;
}

/* Whether the worker has seen the flow lately, and keeps flows of its backend. */
static __always_inline enum miss is_alive(__u32 worker, const struct backend *b, const struct flow *f,
										  _Bool *heard)
{
	__u32 now = bpf_ktime_get_ns() / 1000000000, age = now - f->seen;
	/* In the future: the worker's clock, read a moment later than ours. */
	if (age > 0x7fffffff)
		age = 0;
	if (age > fresh(b, f->state))
		return missed(MISS_STALE);
	void *bytes = bpf_map_lookup_elem(&keeping, &worker);
	__u32 line = f->backend / TABLE_LINE;
	struct kept *kept = bytes ? bpf_map_lookup_elem(bytes, &line) : 0;
	__u8 how = kept ? once(kept->of[f->backend % TABLE_LINE]) : 0;
	if (!how)
		return missed(MISS_NOT_KEPT);
	*heard = how == KEPT_AND_HEARD;
	return MISS_NOT;
}

/* Where the number is that the flow's backend has acknowledged last. */
static __always_inline __u32 *heard_of(__u32 worker, const struct flow *f)
{
	void *all = bpf_map_lookup_elem(&numbers, &worker);
	__u32 line = f->slot / (TABLE_LINE / 4);
	struct numbers *n = all ? bpf_map_lookup_elem(all, &line) : 0;
	return n ? &n->of[f->slot % (TABLE_LINE / 4)] : 0;
}

/* Whether the backend, which has this connection, says up to where it has heard the client. */
static __always_inline _Bool is_heard(const struct packet *p, const struct query *q, const struct flow *f)
{
	_Bool is_open = f->state == TABLE_STATE_ESTABLISHED || f->state == TABLE_STATE_CLIENT_DONE || f->state == TABLE_STATE_BACKEND_DONE;
	return q->reply && is_open && (p->flags & (ACK | RST)) == ACK;
}

static __always_inline void tell(struct report *r, const struct packet *p, const struct query *q, const struct flow *f, __u32 heard)
{
	r->heard = heard;
	r->rest = 0;
	r->client[0] = q->key[0];
	r->client[1] = q->key[1];
	r->client_port = q->key[2];
	r->service_port = q->key[2] >> 16;
	r->end = p->end;
	r->acknowledged = p->acknowledged;
	r->vip = f->vip;
	r->backend = f->backend;
	r->protocol = p->protocol;
	r->flags = p->flags;
	r->reply = q->reply;
	r->spare = 0;
	r->bytes = p->length;
}

static __always_inline void count(const struct flow *f, const struct packet *p, _Bool reply)
{
	__u32 index = bpf_get_smp_processor_id() * MAX_BACKENDS + f->backend;
	struct total *t = bpf_map_lookup_elem(&totals, &index);
	if (!t)
		return;
	if (reply) {
		t->packets_from++;
		t->bytes_from += p->length;
	} else {
		t->packets_to++;
		t->bytes_to += p->length;
	}
}

/* Sends the packet on, changed. `at`: where the IP header is. */
static __always_inline enum miss send(struct __sk_buff *skb, __u32 at, const struct packet *p, const struct query *q,
									  const struct flow *f, const __u64 vip[2], const struct backend *b, __u32 worker,
									  _Bool heard, struct way *way)
{
	const __u64 *from = q->reply ? b->address : vip, *to = q->reply ? vip : b->address;
	if (!find_way(skb, p, q->reply ? vip : p->source, q->reply ? p->destination : b->address, way))
		return missed(MISS_WAY);
	__u32 *number = p->protocol == IPPROTO_TCP ? heard_of(worker, f) : 0;
	if (number && is_heard(p, q, f))
		*number = p->acknowledged;
	if (weigh(p, f->state, q->reply) == SILENT && !heard)
		return rewrite(skb, at, p, from, to, q->reply) ? MISS_NOT : missed(MISS_CHANGE);
	void *ring = bpf_map_lookup_elem(&rings, &worker);
	struct report *report = ring ? bpf_ringbuf_reserve(ring, sizeof(*report), 0) : 0;
	if (!report)
		return missed(MISS_ROOM);
	tell(report, p, q, f, number ? *number : 0);
	if (!rewrite(skb, at, p, from, to, q->reply)) {
		bpf_ringbuf_discard(report, BPF_RB_NO_WAKEUP);
		return missed(MISS_CHANGE);
	}
	/* Before the packet is on its way, and so before any answer to it: the worker reads reports before packets. */
	bpf_ringbuf_submit(report, BPF_RB_NO_WAKEUP);
	return MISS_NOT;
}

static __always_inline enum miss forward(struct __sk_buff *skb, __u32 at, struct way *way)
{
	struct packet p = {};
	if (!read_packet(skb, at, &p))
		return MISS_UNREAD;
	struct address *vip = find_address(p.destination), *peer;
	_Bool reply = !vip || vip->kind != ADDRESS_IS_VIP;
	if (reply && (!(peer = find_address(p.source)) || peer->kind != ADDRESS_IS_BACKEND))
		return MISS_FOREIGN;
	if (p.protocol == IPPROTO_TCP && (p.flags & (SYN | ACK)) == SYN)
		return missed(MISS_OPENS);
	const __u64 *client = reply ? p.destination : p.source;
	__u64 ports = reply ? p.destination_port | (__u32)p.source_port << 16 : p.source_port | (__u32)p.destination_port << 16;
	struct query q = {
		.key = {client[0], client[1], ports | (__u64)p.protocol << 32},
		.other = {p.source[0], p.source[1]},
		.vip = reply ? 0 : vip->index,
		.reply = reply,
	};
	__u32 worker = steer(client, p.is_v6);
	struct worker *w = bpf_map_lookup_elem(&workers, &worker);
	void *table = bpf_map_lookup_elem(&tables, &worker);
	struct flow f = {};
	if (!w || !w->used || !table)
		return missed(MISS_NO_FLOW);
	enum found found = find(table, w, &q, &f);
	if (found != FOUND)
		return missed(found == TORN ? MISS_TORN : MISS_NO_FLOW);
	if (weigh(&p, f.state, reply) == UNUSUAL)
		return missed(MISS_UNUSUAL);
	__u32 index = f.backend;
	struct backend *b = bpf_map_lookup_elem(&backends, &index);
	if (!b || !b->used || (reply && b->interface && b->interface != skb->ifindex))
		return missed(MISS_BACKEND);
	/* Copied: the packet's memory may move, and the supervisor's may change. */
	__u64 address[2];
	_Bool heard;
	enum miss dead = is_alive(worker, b, &f, &heard);
	if (dead)
		return dead;
	if (reply) {
		index = f.vip;
		struct address *v = bpf_map_lookup_elem(&vips, &index);
		if (!v || v->kind != ADDRESS_IS_VIP)
			return missed(MISS_BACKEND);
		address[0] = v->address[0];
		address[1] = v->address[1];
	} else {
		address[0] = p.destination[0];
		address[1] = p.destination[1];
	}
	enum miss miss = send(skb, at, &p, &q, &f, address, b, worker, heard && reply, way);
	if (!miss)
		count(&f, &p, reply);
	return miss;
}

static __always_inline int run(struct __sk_buff *skb, __u32 at)
{
	struct way way = {};
	if (forward(skb, at, &way))
		return MISS;
	return bpf_redirect_neigh(way.interface, &way.next, sizeof(way.next), 0);
}

/* For devices with an Ethernet header. */
SEC("classifier") int loaded_ether(struct __sk_buff *skb)
{
	return run(skb, ETH_HLEN);
}

/* For devices without a link header. */
SEC("classifier") int loaded_bare(struct __sk_buff *skb)
{
	return run(skb, 0);
}

char its_license[] SEC("license") = "Dual BSD/GPL";
