//! The machine it runs on: its rules, its set-up, its shortages, and its operator.

mod control_socket;
mod doctor;
mod rules;
mod shortage;
