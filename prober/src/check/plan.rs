//! A configured kind of check: refused if out of range, with everything it will send prepared.

use super::dns::Query;
use super::{datagram, http};
use crate::clock::MILLISECOND;
use loaded_ipc::{Cause, Check, CheckKind};
use std::net::SocketAddr;

/// One kind of check, with everything it sends prepared.
#[derive(Debug)]
pub(crate) struct CheckPlan {
    /// Milliseconds.
    pub(crate) interval: u32,
    /// Milliseconds.
    pub(crate) interval_down: u32,
    /// Milliseconds.
    timeout: u32,
    /// Percent.
    pub(crate) jitter: u8,
    pub(crate) rise: u8,
    pub(crate) fall: u8,
    /// The TCP port it connects to, at backends.
    pub(crate) tcp_port: Option<u16>,
    /// The UDP port it sends to.
    pub(crate) udp_port: Option<u16>,
    pub(crate) work: Work,
}

/// What a check does.
#[derive(Debug)]
pub(crate) enum Work {
    Echo,
    Tcp { port: u16 },
    EchoTcp { port: u16 },
    Http { port: u16, request: Vec<u8>, status: (u16, u16), via: Option<SocketAddr> },
    Udp { port: u16, send: Vec<u8>, expect: Vec<u8> },
    Dns { port: u16, query: Query },
}

impl CheckPlan {
    /// Makes a plan of what the supervisor sent, if that keeps to the ranges of [`Check`].
    pub(crate) fn new(check: Check) -> Result<Self, &'static str> {
        let Check { kind, interval, interval_down, timeout, jitter, rise, fall } = check;
        for interval in [interval, interval_down] {
            if !(100..=86_400_000).contains(&interval) {
                return Err("an interval is out of range");
            }
        }
        if !(10..=60_000).contains(&timeout) || jitter > 50 || rise == 0 || fall == 0 {
            return Err("a timeout, jitter, rise or fall is out of range");
        }
        if kind.port() == Some(0) {
            return Err("a check goes to port 0");
        }
        let (tcp_port, udp_port) = (kind.tcp_port(), kind.udp_port());
        let work = Work::new(kind)?;
        Ok(Self { interval, interval_down, timeout, jitter, rise, fall, tcp_port, udp_port, work })
    }

    /// Where a checker is asked in the backend's place.
    pub(crate) fn via(&self) -> Option<SocketAddr> {
        if let Work::Http { via, .. } = self.work { via } else { None }
    }

    /// What a result says of the backend. That a checker is not there says nothing.
    pub(crate) fn judged(&self, cause: Cause) -> Cause {
        match cause {
            Cause::ConnectTimeout | Cause::Refused | Cause::Unreachable | Cause::Closed if self.via().is_some() => {
                Cause::NotMade
            }
            cause => cause,
        }
    }

    /// Microseconds between two checks.
    pub(crate) fn interval(&self, up: bool) -> u64 {
        u64::from(if up { self.interval } else { self.interval_down }) * MILLISECOND
    }

    /// Microseconds after which a check has failed; for a ping with a connection, each half.
    pub(crate) fn timeout(&self) -> u64 {
        u64::from(self.timeout) * MILLISECOND
    }
}

impl Work {
    fn new(kind: CheckKind) -> Result<Self, &'static str> {
        Ok(match kind {
            CheckKind::Icmp => Self::Echo,
            CheckKind::Tcp { port } => Self::Tcp { port },
            CheckKind::IcmpTcp { port } => Self::EchoTcp { port },
            CheckKind::Http { port, method, path, host, status, via } => {
                if via.is_some_and(|via| via.port() == 0) {
                    return Err("a checker listens at port 0");
                }
                if !(100..=599).contains(&status.0) || !(status.0..=599).contains(&status.1) {
                    return Err("an HTTP status is out of range");
                }
                Self::Http { port, request: http::request(&method, &path, &host, via.is_none())?, status, via }
            }
            CheckKind::Udp { port, send, expect } => {
                if send.len() > datagram::MAX_TEXT || expect.len() > datagram::MAX_TEXT {
                    return Err("a datagram is too long");
                }
                Self::Udp { port, send, expect }
            }
            CheckKind::Dns { port, name } => Self::Dns { port, query: Query::new(&name)? },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: CheckKind) -> Check {
        Check { kind, interval: 2000, interval_down: 1000, timeout: 500, jitter: 10, rise: 2, fall: 3 }
    }

    #[test]
    fn a_check_out_of_range_is_refused() {
        assert!(CheckPlan::new(check(CheckKind::Tcp { port: 0 })).is_err());
        let udp = CheckKind::Udp { port: 1, send: vec![0; 129], expect: Vec::new() };
        assert!(CheckPlan::new(check(udp)).is_err());
        let good = check(CheckKind::Icmp);
        for bad in [
            Check { interval: 99, ..good.clone() },
            Check { interval_down: 86_400_001, ..good.clone() },
            Check { timeout: 9, ..good.clone() },
            Check { jitter: 51, ..good.clone() },
            Check { rise: 0, ..good.clone() },
            Check { fall: 0, ..good.clone() },
        ] {
            assert!(CheckPlan::new(bad).is_err());
        }
        for status in [(99, 200), (200, 600), (300, 200)] {
            let (method, path, host) = ("GET".into(), "/".into(), "h".into());
            assert!(
                CheckPlan::new(check(CheckKind::Http { port: 80, method, path, host, status, via: None })).is_err()
            );
        }
    }
}
