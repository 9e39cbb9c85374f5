//! Packets on their way through the balancer: which backend they reach, and what is rewritten.

mod addresses;
mod balance;
mod beside;
mod checksum_offload;
mod dsr;
mod explain;
mod fragments;
mod icmp_errors;
mod kernel_path;
mod load;
mod on_failure;
mod orphans;
mod own_connections;
mod path_mtu;
mod ports;
mod protocols;
mod reused_ports;
mod strategies;
mod timeouts;
mod traceroute;
