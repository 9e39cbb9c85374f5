//! The host it runs on: its rules, set-up, shortages and control socket.

mod control_socket;
mod doctor;
mod end_flows;
mod exporter;
mod host_conditions;
mod host_set;
mod idle;
mod journal;
mod live;
mod many_flows;
mod migrate;
mod monitoring;
mod monitors;
mod notify;
mod rules;
mod rules_removed;
mod shortage;
