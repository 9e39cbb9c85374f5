//! The decision, on real packets built byte by byte and real tables in a memfd.

mod affinity;
mod errors;
mod flows;
mod packets;
mod passing;
mod properties;
mod spoofed;
mod strategies;
mod world;
