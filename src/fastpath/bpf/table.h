/* SPDX-License-Identifier: BSD-2-Clause
 * Finds a flow in a worker's table, as src/table/src/map.rs does, while that worker writes to it.
 *
 * The worker fills a way's words, then its time and state, then the tag; before it changes them it clears the tag. Each entry
 * carries a check over key and value. So a way is taken if the tag matches, the check holds, and after the state was read the tag
 * and the word of value and check are still what they were: then key, value and state are of one entry. A way that the worker
 * was killed in is free.
 */
#pragma once
#include "maps.h"

struct query {
	__u64 key[3];
	__u64 other[2];  /* a reply's source */
	__u32 vip;
	__u16 port;      /* of the service: at the virtual IP in a request, at the backend in a reply */
	__u8 reply, ports; /* which ports the key may have */
	__u32 worker, spare;
};

struct flow {
	__u32 seen, slot;
	__u16 vip, vip_port, backend;
	__u8 state, spare;
};

struct places {
	__u32 first, second;
	__u16 tag;
};

/* The service's port in a key's third word. */
#define KEY_PORT 0xffff0000ull

#define ROTATE(x, by) ((x) << (by) | (x) >> (64 - (by)))
#define ROUND                                                                                                                      \
	do {                                                                                                                           \
		v0 += v1, v1 = ROTATE(v1, 13) ^ v0, v0 = ROTATE(v0, 32);                                                                   \
		v2 += v3, v3 = ROTATE(v3, 16) ^ v2;                                                                                        \
		v0 += v3, v3 = ROTATE(v3, 21) ^ v0;                                                                                        \
		v2 += v1, v1 = ROTATE(v1, 17) ^ v2, v2 = ROTATE(v2, 32);                                                                   \
	} while (0)

/* SipHash-1-3 (Aumasson and Bernstein 2012) of 24 bytes. */
static __always_inline __u64 siphash(const __u64 k[2], const __u64 words[3])
{
	__u64 v0 = k[0] ^ 0x736f6d6570736575, v1 = k[1] ^ 0x646f72616e646f6d;
	__u64 v2 = k[0] ^ 0x6c7967656e657261, v3 = k[1] ^ 0x7465646279746573;
#pragma unroll
	for (int i = 0; i < 3; i++) {
		v3 ^= words[i];
		ROUND;
		v0 ^= words[i];
	}
	v3 ^= 24ull << 56;
	ROUND;
	v0 ^= 24ull << 56;
	v2 ^= 0xff;
	ROUND;
	ROUND;
	ROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}

static __always_inline void place(const struct worker *w, const __u64 key[3], struct places *to)
{
	__u64 hash = siphash(w->hash_key, key), buckets = w->buckets;
	__u32 low = hash, high = hash >> 32;
	to->first = low * buckets >> 32;
	to->second = high * buckets >> 32;
	if (to->second == to->first)
		to->second = to->first + 1 < buckets ? to->first + 1 : 0;
	__u16 tag = low ^ (high << 7 | high >> 25);
	to->tag = tag ? tag : 1;
}

/* Both halves of a product, added without carry: `fold` in map/hash.rs. There is no multiplication to 128 bits here. */
static __always_inline __u64 fold(__u64 a, __u64 b)
{
	__u64 a0 = (__u32)a, a1 = a >> 32, b0 = (__u32)b, b1 = b >> 32;
	__u64 low = a0 * b0, one = a0 * b1, two = a1 * b0;
	__u64 middle = (low >> 32) + (__u32)one + (__u32)two;
	return (middle << 32 | (__u32)low) ^ (a1 * b1 + (one >> 32) + (two >> 32) + (middle >> 32));
}

static __always_inline __u32 check(const struct worker *w, const __u64 key[3], __u32 value)
{
	__u64 k0 = w->hash_key[0], k1 = w->hash_key[1];
	__u64 left = fold(key[0] ^ k0 ^ TABLE_CHECK_0, key[1] ^ k1 ^ TABLE_CHECK_1);
	__u64 right = fold(key[2] ^ k1 ^ TABLE_CHECK_2, value ^ k0 ^ TABLE_CHECK_3);
	return fold(left ^ k1, right ^ TABLE_CHECK_4) >> 40;
}

/* Whether it is the flow of a packet to this place at the virtual IPs, or from this backend: keys are without them. */
static __always_inline _Bool is_wanted(const struct query *q, const struct flow *f)
{
	if (!q->reply)
		return f->vip == q->vip && f->vip_port == q->port;
	__u32 index = f->backend;
	struct backend *b = bpf_map_lookup_elem(&backends, &index);
	if (!b || b->kind != BACKEND_IS_REWRITTEN)
		return 0;
	__u16 port = b->port;
	return (port ? port : f->vip_port) == q->port && b->address[0] == q->other[0] && b->address[1] == q->other[1];
}

enum found { NOTHING, FOUND, TORN };

/* Looks into one bucket. No static function: the kernel verifies it by itself (Linux 5.12) and once, and the rest of the program
 * does not multiply with its paths.
 */
__attribute__((noinline)) int find_in(struct query *q, struct flow *f, __u32 bucket, __u32 tag)
{
	if (!q || !f)
		return NOTHING;
	__u32 worker = q->worker, line = TABLE_HEADER_LINES + bucket * TABLE_BUCKET_LINES;
	struct worker *w = bpf_map_lookup_elem(&workers, &worker);
	void *table = bpf_map_lookup_elem(&tables, &worker);
	struct bucket *b = table ? bpf_map_lookup_elem(table, &line) : 0;
	if (!w || !b)
		return NOTHING;
	__u64 tags[2] = {once(b->tags[0]), once(b->tags[1])};
#pragma unroll
	for (__u32 way = 0; way < TABLE_WAYS; way++) {
		__u64 word = way < 4 ? tags[0] : tags[1];
		__u32 shift = (way & 3) * 16;
		if ((__u16)(word >> shift) != (__u16)tag)
			continue;
		__u32 at = line + 1 + way / 2;
		struct entry *pair = bpf_map_lookup_elem(table, &at);
		if (!pair)
			return NOTHING;
		struct entry *e = &pair[way & 1];
		__u64 value = once(e->value), key[3] = {once(e->key[0]), once(e->key[1]), once(e->key[2])};
		if (key[0] != q->key[0] || key[1] != q->key[1] || (key[2] ^ q->key[2]) & TABLE_KEY_MASK)
			continue;
		__u32 kept = (__u16)(value >> 32) | (__u32)once(b->check[way]) << 16;
		if (check(w, key, value) != kept)
			return TORN;
		f->vip = value;
		f->backend = (__u32)value >> 16;
		f->vip_port = key[2] >> 48;
		if (!is_wanted(q, f))
			continue;
		f->seen = once(b->seen[way]);
		f->slot = bucket * TABLE_WAYS + way;
		f->state = once(b->state[way]) & ~TABLE_OVER_QUOTA;
		__u64 now = way < 4 ? once(b->tags[0]) : once(b->tags[1]);
		return (__u16)(now >> shift) == (__u16)tag && !((once(e->value) ^ value) & CHECKED) ? FOUND : TORN;
	}
	return NOTHING;
}

static __always_inline int find_by_key(const struct worker *w, struct query *q, struct flow *f)
{
	struct places to;
	place(w, q->key, &to);
	int found = find_in(q, f, to.first, to.tag);
	return found != NOTHING ? found : find_in(q, f, to.second, to.tag);
}

/* Finds the flow of a packet. A key has the port that the packet names, or 0 if the flow's backend has a port of its own
 * (worker/src/decide/key_port.rs).
 * No static function either.
 */
__attribute__((noinline)) int find_flow(struct query *q, struct flow *f)
{
	if (!q || !f)
		return NOTHING;
	__u32 worker = q->worker;
	struct worker *w = bpf_map_lookup_elem(&workers, &worker);
	if (!w || !w->used)
		return NOTHING;
	if (q->ports == PORTS_CHANGE)
		q->key[2] &= ~KEY_PORT;
	int found = NOTHING;
#pragma clang loop unroll(disable)
	for (int tries = q->ports == (PORTS_CHANGE | PORTS_STAY) ? 2 : 1; tries > 0 && found == NOTHING; tries--) {
		found = find_by_key(w, q, f);
		q->key[2] &= found == NOTHING ? ~KEY_PORT : ~0ull;
	}
	return found;
}
