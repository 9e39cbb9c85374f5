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
#define DROP 2 /* TC_ACT_SHOT */

/* What a packet of a flow is to the worker. */
enum weight {
	UNUSUAL,  /* the worker has to see it */
	TELLING,  /* it may move the flow's state: the worker has to hear of it */
	SILENT,
};

/* To a direct backend, whose replies do not come this way (`next_state_one_sided` in worker/src/decide/flow_state.rs). */
static __always_inline enum weight weigh_one_sided(const struct packet *p, __u8 state)
{
	if (p->protocol == IPPROTO_UDP)
		return state == TABLE_STATE_REPLIED ? SILENT : state == TABLE_STATE_UNANSWERED ? TELLING : UNUSUAL;
	__u8 flags = p->flags & (SYN | FIN | RST | ACK);
	if (flags & SYN)
		return UNUSUAL;
	switch (state) {
	case TABLE_STATE_ONE_SIDED:
		return flags == ACK ? SILENT : TELLING;
	case TABLE_STATE_HALF_OPEN:
	case TABLE_STATE_CLOSING:
		return TELLING;
	}
	return UNUSUAL;
}

static __always_inline enum weight weigh(const struct packet *p, __u8 state, _Bool reply, _Bool direct)
{
	if (direct)
		return weigh_one_sided(p, state);
	/* What follows the backend's FIN from its side is its acknowledgement of the client's, which ends the flow. */
	if (p->protocol == IPPROTO_UDP) {
		if (state == TABLE_STATE_DATAGRAM)
			return SILENT;
		return state == TABLE_STATE_UNANSWERED || state == TABLE_STATE_REPLIED ? TELLING : UNUSUAL;
	}
	__u8 flags = p->flags & (SYN | FIN | RST | ACK);
	if (flags & SYN && !(reply && flags == (SYN | ACK)))
		return UNUSUAL;
	switch (state) {
	case TABLE_STATE_BACKEND_DONE:
		if (reply)
			return TELLING;
		/* fallthrough */
	case TABLE_STATE_ESTABLISHED:
	case TABLE_STATE_CLIENT_DONE:
		return flags == ACK ? SILENT : TELLING;
	case TABLE_STATE_LAST_ACK:
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

/* Notes up to where a backend says that it has heard the client, and its FIN. The worker may be as late as its next look at the ring:
 * until then the state does not say that the backend has finished.
 */
static __always_inline __u32 note(__u32 number, const struct packet *p, __u8 state)
{
	if ((p->flags & (SYN | ACK)) == (SYN | ACK))
		return 0;
	_Bool is_open = state == TABLE_STATE_ESTABLISHED || state == TABLE_STATE_CLIENT_DONE || state == TABLE_STATE_BACKEND_DONE;
	if ((p->flags & (ACK | RST)) == ACK && is_open)
		number = (number & FINISHED) | HEARD | (__u16)p->acknowledged;
	/* Data behind it: it was that of another connection in this place. */
	return p->flags & FIN ? number | FINISHED : p->payload ? number & ~FINISHED : number;
}

static __always_inline void tell(struct report *r, const struct packet *p, const struct query *q, const struct flow *f, __u32 heard)
{
	r->heard = heard;
	r->vip_port = f->vip_port;
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
static __always_inline enum miss send(struct __sk_buff *skb, __u32 at, struct packet *p, const struct query *q,
									  const struct flow *f, struct change *c, __u32 worker, _Bool heard, struct way *way)
{
	if (!find_way(skb, p, c, way))
		return missed(MISS_WAY);
	_Bool told = heard || weigh(p, f->state, q->reply, c->direct) != SILENT;
	/* In a large table each look at it waits for memory, and nothing of a silent request is noted. */
	__u32 *number = p->protocol == IPPROTO_TCP && (told || q->reply) ? heard_of(worker, f) : 0, was = number ? *number : 0;
	if (number && q->reply)
		*number = note(was, p, f->state);
	if (!told && !(q->reply && was & FINISHED))
		return rewrite(skb, at, p, c) ? MISS_NOT : missed(MISS_CHANGE);
	void *ring = bpf_map_lookup_elem(&rings, &worker);
	struct report *report = ring ? bpf_ringbuf_reserve(ring, sizeof(*report), 0) : 0;
	if (!report)
		return missed(MISS_ROOM);
	tell(report, p, q, f, number ? *number : 0);
	if (!rewrite(skb, at, p, c)) {
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
		.port = reply ? p.source_port : p.destination_port,
		.reply = reply,
		.ports = reply ? peer->ports : vip->ports,
		.worker = steer(client, p.is_v6),
	};
	__u32 worker = q.worker;
	struct flow f = {};
	int found = find_flow(&q, &f);
	if (found != FOUND)
		return missed(found == TORN ? MISS_TORN : MISS_NO_FLOW);
	__u32 index = f.backend;
	struct backend *b = bpf_map_lookup_elem(&backends, &index);
	if (!b || !b->kind || (reply && b->interface && b->interface != skb->ifindex))
		return missed(MISS_BACKEND);
	_Bool direct = b->kind == BACKEND_IS_DIRECT;
	if (weigh(&p, f.state, reply, direct) == UNUSUAL)
		return missed(MISS_UNUSUAL);
	__u16 port = b->port ? b->port : f.vip_port;
	_Bool heard;
	enum miss dead = is_alive(worker, b, &f, &heard);
	if (dead)
		return dead;
	if (reply) {
		index = f.vip;
		vip = bpf_map_lookup_elem(&vips, &index);
		if (!vip || vip->kind != ADDRESS_IS_VIP)
			return missed(MISS_BACKEND);
	}
	const __u64 *from = reply ? b->address : vip->address, *to = reply ? vip->address : b->address;
	struct change c = {
		.from = {from[0], from[1]},
		.to = {to[0], to[1]},
		.from_port = reply ? port : f.vip_port,
		.to_port = reply ? f.vip_port : port,
		.reply = reply,
		.direct = direct,
	};
	if (!is_of_family(c.to, p.is_v6))
		return missed(MISS_BACKEND);
	enum miss miss = send(skb, at, &p, &q, &f, &c, worker, heard && reply, way);
	if (!miss)
		count(&f, &p, reply);
	return miss;
}

static __always_inline int run(struct __sk_buff *skb, __u32 at)
{
	struct way way = {};
	if (forward(skb, at, &way))
		return MISS;
	/* A packet without a link header is dropped (__bpf_redirect_neigh in net/core/filter.c), so it gets an empty one. It has been
	 * changed by now: without memory it is lost, as on any link.
	 */
	if (!at && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return DROP;
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
