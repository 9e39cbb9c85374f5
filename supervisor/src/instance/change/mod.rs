//! How an instance changes from one state to another: `start`, `reconfigure` (HUP, discovery, departures) and `upgrade` (USR2),
//! then [`soft_stop`] (serving on until clients have moved) and `end` (the last acts). [`phase`] says what it is doing.

mod end;
pub(super) mod phase;
mod reconfigure;
pub(super) mod soft_stop;
mod start;
mod upgrade;
