//! What end-to-end tests are built from: a lab in network namespaces, `loaded` in it, and clients. It knows no test.

pub(crate) mod anycast;
pub(crate) mod config;
pub(crate) mod conntrackd;
pub(crate) mod debian;
pub(crate) mod direct_return;
mod gate;
pub(crate) mod kept_open;
pub(crate) mod lab;
pub(crate) mod loaded;
pub(crate) mod machine;
pub(crate) mod net;
pub(crate) mod packet;
pub(crate) mod pair;
pub(crate) mod ports;
pub(crate) mod queues;
pub(crate) mod requests;
pub(crate) mod routers;
pub(crate) mod servers;
pub(crate) mod wire;
pub(crate) mod witness;
