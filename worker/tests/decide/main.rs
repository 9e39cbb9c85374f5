//! The decision, on real packets built byte by byte and real tables in a memfd.

mod adopt;
mod affinity;
mod churn;
mod clash;
mod direct;
mod end;
mod errors;
mod explain;
mod flood;
mod flows;
mod fragments;
mod idle;
mod membership;
mod packets;
mod passing;
mod passive;
mod ports;
mod properties;
mod replay;
mod spoofed;
mod strategies;
mod world;
