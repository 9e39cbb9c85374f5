/* SPDX-License-Identifier: BSD-2-Clause
 * What the program knows, and who writes it. Sizes and places come from the Rust side (src/fastpath/src/shared.rs and src/table)
 * by layout.h, and the compiler compares. max_entries of 1 stand for what the loader sets.
 */
#pragma once
#include "kernel.h"
#include "layout.h"

#define AT(type, field, place) _Static_assert(__builtin_offsetof(struct type, field) == (place), #type "." #field)
#define SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type)

/* ---- by worker: written by the worker alone, through its mapping ---- */

/* Eight ways: the first line of a bucket. */
struct bucket {
	__u64 tags[2];
	__u32 seen[TABLE_WAYS];
	__u8 state[TABLE_WAYS];
	__u8 check[TABLE_WAYS]; /* bits 16 to 23 */
};
SIZE(bucket, TABLE_LINE);
AT(bucket, tags, TABLE_TAGS);
AT(bucket, seen, TABLE_SEEN);
AT(bucket, state, TABLE_STATE);
AT(bucket, check, TABLE_CHECK);

/* Three key words; then 32 bits of value (low), 16 of check, and 16 that are the worker's alone and may change at any time. */
struct entry {
	__u64 key[3], value;
};
SIZE(entry, TABLE_ENTRY_BYTES);

#define CHECKED 0x0000ffffffffffffull

/* By slot of the table: HEARD and the lower 16 bits of what the flow's backend has acknowledged last, and FINISHED once it has
 * sent its FIN. Written by the program alone, and told with reports: by it the worker judges what ends a flow in the client's
 * name.
 */
struct numbers {
	__u32 of[TABLE_LINE / 4];
};

/* For each backend a byte: 0 while its flows are not kept, KEPT or KEPT_AND_HEARD. */
struct kept {
	__u8 of[TABLE_LINE];
};

struct report {
	__u64 client[2];
	__u16 client_port, service_port;
	__u32 end, acknowledged;
	__u16 vip, backend;
	__u8 protocol, flags, reply, spare;
	__u32 bytes, heard;
	__u16 vip_port, rest;
};
SIZE(report, REPORT_BYTES);
AT(report, client, REPORT_CLIENT);
AT(report, client_port, REPORT_CLIENT_PORT);
AT(report, service_port, REPORT_SERVICE_PORT);
AT(report, end, REPORT_END);
AT(report, acknowledged, REPORT_ACKNOWLEDGED);
AT(report, vip, REPORT_VIP);
AT(report, backend, REPORT_BACKEND);
AT(report, protocol, REPORT_PROTOCOL);
AT(report, flags, REPORT_FLAGS);
AT(report, reply, REPORT_REPLY);
AT(report, bytes, REPORT_PACKET_BYTES);
AT(report, heard, REPORT_HEARD);
AT(report, vip_port, REPORT_VIP_PORT);

#define OF_WORKERS(name, kind, ...)                                                                                                \
	struct {                                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);                                                                                  \
		__uint(max_entries, MAX_WORKERS);                                                                                          \
		__type(key, __u32);                                                                                                        \
		__array(                                                                                                                   \
			values, struct {                                                                                                       \
				__uint(type, kind);                                                                                                \
				__VA_ARGS__                                                                                                        \
			});                                                                                                                    \
	} name SEC(".maps")

/* Sizes, not types: clang 14 forgets structs that are named only here. */
/* BPF_F_INNER_MAP: tables of instances differ in size, and an outer map takes arrays of one size otherwise (Linux 5.10). */
OF_WORKERS(tables, BPF_MAP_TYPE_ARRAY, __uint(max_entries, 1); __uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
		   __uint(key_size, 4); __uint(value_size, TABLE_LINE););
OF_WORKERS(numbers, BPF_MAP_TYPE_ARRAY, __uint(max_entries, 1); __uint(map_flags, BPF_F_INNER_MAP); __uint(key_size, 4);
		   __uint(value_size, TABLE_LINE););
OF_WORKERS(keeping, BPF_MAP_TYPE_ARRAY, __uint(max_entries, MAX_BACKENDS / TABLE_LINE); __uint(map_flags, BPF_F_MMAPABLE);
		   __uint(key_size, 4); __uint(value_size, TABLE_LINE););
OF_WORKERS(rings, BPF_MAP_TYPE_RINGBUF, __uint(max_entries, 4096););

/* ---- of the instance: written by the supervisor alone, through its mapping ---- */

struct backend {
	__u64 address[2];
	__u32 interface;
	__u8 fresh_tcp, fresh_udp, fresh_half_open, fresh_closing;
	__u16 port;
	__u8 kind, spare[5];
};
SIZE(backend, BACKEND_BYTES);
AT(backend, address, BACKEND_ADDRESS);
AT(backend, interface, BACKEND_INTERFACE);
AT(backend, fresh_tcp, BACKEND_FRESH_TCP);
AT(backend, fresh_udp, BACKEND_FRESH_UDP);
AT(backend, fresh_half_open, BACKEND_FRESH_HALF_OPEN);
AT(backend, fresh_closing, BACKEND_FRESH_CLOSING);
AT(backend, port, BACKEND_PORT);
AT(backend, kind, BACKEND_KIND);

/* Virtual IPs, and the addresses that replies come from. */
struct address {
	__u64 address[2];
	__u16 index, spare[3];
	__u8 kind, ports, rest[6];
};
SIZE(address, ADDRESS_BYTES);
AT(address, address, ADDRESS_ADDRESS);
AT(address, index, ADDRESS_INDEX);
AT(address, kind, ADDRESS_KIND);
AT(address, ports, ADDRESS_PORTS);

/* By index; the index is not used. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_VIPS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct address);
} vips SEC(".maps");

struct addresses {
	struct address slot[ADDRESS_SLOTS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ADDRESS_BUCKETS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct addresses);
} addresses SEC(".maps");

/* What a worker's table is. The table says the same, but the worker can write that. */
struct worker {
	__u64 hash_key[2];
	__u32 buckets, spare;
	__u8 used, rest[7];
};
SIZE(worker, WORKER_BYTES);
AT(worker, hash_key, WORKER_HASH_KEY);
AT(worker, buckets, WORKER_BUCKETS);
AT(worker, used, WORKER_USED);

/* What stays as long as the instance: the loader writes it and the kernel freezes it. */
struct steering {
	__u32 workers, mask4, mask6[4], keys[6];
};
SIZE(steering, STEERING_BYTES);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_WORKERS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct worker);
} workers SEC(".maps");

volatile const struct steering steering = {.workers = 1};
volatile const __u64 address_seed[2] = {1, 1};
volatile const __u32 fib_flags = 0;

/* ---- counted by the program: a set for each CPU, and no other writer ---- */

struct total {
	__u64 packets_to, bytes_to, packets_from, bytes_from;
};
SIZE(total, TOTAL_BYTES);

/* Index: CPU * MAX_BACKENDS + backend. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct total);
} totals SEC(".maps");

struct missed {
	__u64 because[MISS_KINDS];
};

/* Index: CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct missed);
} misses SEC(".maps");

/* Counts a packet that goes on to the rules, and says so. */
static __always_inline enum miss missed(enum miss why)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct missed *m = bpf_map_lookup_elem(&misses, &cpu);
	if (m)
		m->because[why]++;
	return why;
}
