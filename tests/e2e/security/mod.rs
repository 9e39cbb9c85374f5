//! Hostile packets, floods, and processes of ours that have been taken over.

mod breakout;
mod flood;
mod forged;
mod generated_packets;
mod hostile_packets;
mod hostile_prober;
mod hostile_worker;
mod poison_packets;
mod sandbox;
