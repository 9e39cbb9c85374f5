//! Backends that fail, are taken out and come back.

mod answers;
mod checks;
mod discovery;
mod down_policies;
mod drain;
mod failover;
mod https;
mod many;
mod prober_killed;
mod silent_host;
