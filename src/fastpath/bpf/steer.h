/* SPDX-License-Identifier: BSD-2-Clause
 * Whose packet it is: the direction by its addresses, and the worker by the rules' hash of the client's address
 * (src/netfilter/src/rules/steer.rs).
 */
#pragma once
#include "packet.h"

static __always_inline struct address *find_address(const __u64 address[2])
{
	__u64 hash = address[0] * address_seed[0] + address[1] * address_seed[1];
	__u32 bucket = hash >> (64 - ADDRESS_BITS);
	struct addresses *all = bpf_map_lookup_elem(&addresses, &bucket);
	if (!all)
		return 0;
#pragma unroll
	for (int i = 0; i < ADDRESS_SLOTS; i++) {
		struct address *a = &all->slot[i];
		if (a->address[0] == address[0] && a->address[1] == address[1] && a->kind)
			return a;
	}
	return 0;
}

static __always_inline __u32 steer(const __u64 client[2], _Bool is_v6)
{
	__u32 workers = steering.workers;
	if (workers <= 1)
		return 0;
	__u32 h = steering.keys[4];
	if (is_v6) {
#pragma unroll
		for (int i = 0; i < 4; i++)
			h += (swap32(client[i / 2] >> (i % 2 * 32)) & steering.mask6[i]) * steering.keys[i];
	} else
		h += (swap32(client[1] >> 32) & steering.mask4) * steering.keys[0];
	h ^= h >> 16;
	h *= steering.keys[5];
	h ^= h >> 15;
	return h % workers;
}
