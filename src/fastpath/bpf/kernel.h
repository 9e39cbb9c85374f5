/* SPDX-License-Identifier: BSD-2-Clause
 * What the kernel gives a program: the helpers that are used here, by their numbers in linux/bpf.h, and the words by which a
 * loader finds maps. So the build needs clang and the kernel's headers, but no library.
 */
#pragma once
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#undef __always_inline /* linux/stddef.h has a weaker one */
#define __always_inline inline __attribute__((always_inline))
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name
#define __array(name, value) typeof(value) *name[]

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define swap16(x) __builtin_bswap16(x)
#define swap32(x) __builtin_bswap32(x)
/* Reads memory that somebody else writes meanwhile: once, and here. */
#define once(place) (*(volatile typeof(place) *)&(place))

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u64 (*const bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)BPF_FUNC_get_smp_processor_id;
static long (*const bpf_skb_pull_data)(struct __sk_buff *, __u32 length) = (void *)BPF_FUNC_skb_pull_data;
static long (*const bpf_skb_change_head)(struct __sk_buff *, __u32 length, __u64 flags) = (void *)BPF_FUNC_skb_change_head;
static long (*const bpf_l4_csum_replace)(struct __sk_buff *, __u32 at, __u64 from, __u64 to, __u64 flags) =
	(void *)BPF_FUNC_l4_csum_replace;
static __s64 (*const bpf_csum_diff)(const void *from, __u32 from_bytes, const void *to, __u32 to_bytes, __u32 seed) =
	(void *)BPF_FUNC_csum_diff;
static long (*const bpf_fib_lookup)(void *ctx, struct bpf_fib_lookup *, int bytes, __u32 flags) =
	(void *)BPF_FUNC_fib_lookup;
static long (*const bpf_redirect_neigh)(__u32 interface, struct bpf_redir_neigh *, int bytes, __u64 flags) =
	(void *)BPF_FUNC_redirect_neigh;
static void *(*const bpf_ringbuf_reserve)(void *ring, __u64 bytes, __u64 flags) = (void *)BPF_FUNC_ringbuf_reserve;
static void (*const bpf_ringbuf_submit)(void *record, __u64 flags) = (void *)BPF_FUNC_ringbuf_submit;
static void (*const bpf_ringbuf_discard)(void *record, __u64 flags) = (void *)BPF_FUNC_ringbuf_discard;
