//! Hostile packets, floods, and processes of ours that have been taken over.

mod breakout;
mod clashes;
pub(crate) mod flood;
mod forged;
mod forged_replies;
mod forged_tables;
mod generated_packets;
mod hostile_exporter;
mod hostile_packets;
mod hostile_prober;
mod hostile_worker;
mod phantom_nodes;
mod poison_packets;
mod sandbox;
