//! What tells that others have changed our rules or routes: the kernel announces changes of nftables and of routes; tables
//! of iptables-legacy are looked at.

use loaded_host::{HostChanges, HostEvents};
use loaded_netfilter::{Changes, Events};
use loaded_queue::legacy_tables;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Time from a change to the look at our rules, for whoever changes rules seldom changes one alone. Doubled for each time in
/// [`WINDOW`] that they had to be put back, up to [`LONGEST_DELAY`].
pub(super) const DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// If our rules are removed this often within this time, somebody does not want them.
pub(super) const OFTEN: usize = 5;
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Time between two looks where the kernel announces nothing, and after an attempt that has failed.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// What is known of our rules in the kernel, and what tells of their changes.
#[derive(Debug)]
pub(crate) struct Watch {
    source: ChangeSource,
    host: Option<HostEvents>,
    /// The next look at our rules; `None`: once something has changed.
    pub(super) due: Option<Instant>,
    /// Who has changed the table last.
    pub(super) by: Option<(String, u32)>,
    /// When the rules were put back, within [`WINDOW`].
    pub(super) recent: VecDeque<Instant>,
    /// When it was last told that somebody keeps removing them.
    pub(super) warned: Option<Instant>,
    /// How often the rules had to be put back.
    pub(super) put_back: u64,
    /// What is missing and could not be put back.
    pub(super) missing: Vec<String>,
    /// The last error, so that it is logged once.
    pub(super) trouble: Option<String>,
}

/// What the kernel has announced.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard {
    /// Rules have changed, anybody's.
    pub(super) rules: bool,
    /// Interfaces, addresses, routes or settings have changed.
    pub(super) of_host: bool,
    /// Routes may have been lost.
    pub(super) may_lose_routes: bool,
    /// Addresses or interfaces have changed.
    pub(super) addresses: bool,
}

/// What tells that rules have changed.
#[derive(Debug)]
enum ChangeSource {
    Nft(Events),
    /// Number and size of all rules, as last seen.
    Legacy(Vec<u8>),
    /// Nothing: the rules themselves are looked at.
    Nothing,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            source: ChangeSource::Nothing,
            host: None,
            due: None,
            by: None,
            recent: VecDeque::new(),
            warned: None,
            put_back: 0,
            missing: Vec::new(),
            trouble: None,
        }
    }

    /// Begins once the rules are installed.
    pub(super) fn begin(&mut self, is_nft: bool) {
        self.source = match is_nft {
            true => Events::open().map_or_else(
                |error| {
                    log::warn!("changes of nftables are not announced ({error}): rules are looked at every {AGAIN:?}");
                    ChangeSource::Nothing
                },
                ChangeSource::Nft,
            ),
            false => ChangeSource::Legacy(Vec::new()),
        };
        self.host =
            HostEvents::open().inspect_err(|error| log::warn!("changes of routes are not announced: {error}")).ok();
        self.due = Some(Instant::now());
    }

    /// Descriptors that tell of changes.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let nft = if let ChangeSource::Nft(events) = &self.source { Some(events.as_fd()) } else { None };
        nft.into_iter().chain(self.host.as_ref().map(AsFd::as_fd))
    }

    /// Whether changes of interfaces, addresses and routes are announced.
    pub(super) fn hears_host(&self) -> bool {
        self.host.is_some()
    }

    /// When the rules are to be looked at.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Reads what the kernel has announced.
    pub(super) fn hear(&mut self, now: Instant) -> Heard {
        let mut heard = Heard::default();
        if let ChangeSource::Nft(events) = &mut self.source {
            let Changes { any, raw, by, .. } = events.read();
            heard.rules = any;
            if raw {
                self.by = by;
                self.expect_look(now);
            }
        }
        if let Some(host) = &mut self.host {
            let HostChanges { any, may_lose_routes, addresses } = host.read();
            (heard.of_host, heard.may_lose_routes, heard.addresses) = (any, may_lose_routes, addresses);
        }
        heard
    }

    /// Looks whether rules have changed where the kernel announces nothing; whether they may have.
    pub(super) fn look_at_tables(&mut self, now: Instant) -> bool {
        match &mut self.source {
            ChangeSource::Nft(_) => return false,
            ChangeSource::Legacy(seen) => match legacy_tables() {
                Ok(tables) if tables == *seen => return false,
                Ok(tables) => *seen = tables,
                Err(_) => self.source = ChangeSource::Nothing,
            },
            ChangeSource::Nothing => {}
        }
        self.expect_look(now);
        true
    }

    /// Has the rules looked at soon: the later, the more often they had to be put back.
    fn expect_look(&mut self, now: Instant) {
        self.recent.retain(|at| now.duration_since(*at) < WINDOW);
        let doublings = u32::try_from(self.recent.len()).unwrap_or(u32::MAX).min(5);
        let delay = if matches!(self.source, ChangeSource::Nothing) { AGAIN } else { DELAY * 2_u32.pow(doublings) };
        self.due.get_or_insert(now + delay.min(LONGEST_DELAY));
    }
}
