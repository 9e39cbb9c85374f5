//! netlink(7): one question to the kernel at a time with all of its answers, and what the kernel announces.
//!
//! It knows headers and attributes. It never knows what a message of any family says. Headers and attributes are read by
//! `netlink-packet-core`; its sister `netlink-packet-route`, which knows the messages, makes an error of a whole message when a
//! newer kernel has changed one attribute of it, where we skip what we do not look for.
//!
//! NFQUEUE has sockets of its own, in `loaded-queue`: they answer packets and allocate nothing.
#![forbid(unsafe_code)]

mod read;
mod request;
mod socket;
mod subscription;

pub use nix::sys::socket::SockProtocol;
pub use read::{Message, attribute, attributes, messages, number};
pub use request::{Attributes, Request};
pub use socket::Socket;
pub use subscription::Subscription;
