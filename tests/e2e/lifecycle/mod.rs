//! The life of the program's processes: start, reload, upgrade, crash, stop.

mod active_active;
mod anycast;
mod beside_conntrackd;
mod refused_start;
mod reload;
mod reload_storm;
mod run_time;
mod soft_stop;
mod start_stop;
mod supervisor_killed;
mod surroundings;
mod takeover;
mod two_machines;
mod upgrade;
mod worker_hung;
mod worker_killed;
