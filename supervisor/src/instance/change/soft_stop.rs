//! A soft stop: the instance was told to end, and serves on until its clients have another balancer. Meanwhile its verdict is
//! "not serving", so that whoever moves the VIPs (VRRP, BGP) moves them. An instance that ended first would leave their
//! packets to this host's own stack, which answers each with a reset.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Time between two looks at the addresses of this host.
const EVERY: Duration = Duration::from_millis(100);
/// Clients have been moved by their routes (BGP), and the VIPs are addresses of this host still, when none has sent a packet for
/// so long. Long enough for a health script that runs every few seconds, so that an idle balancer is not taken for one that was left.
pub(super) const QUIET: Duration = Duration::from_secs(10);
/// How long it serves on after the VIPs have left. Clients and backends send to this host's link address until the other balancer has
/// told them: it takes over within a second (`advert_int` of VRRP). Without rules this host would route packets of theirs as they are.
const AFTER: Duration = Duration::from_secs(3);

/// An instance that is about to end.
#[derive(Debug)]
pub(crate) struct SoftStop {
    /// It ends then, whatever is still here.
    until: Instant,
    /// How long after its beginning that is.
    limit: Duration,
    /// VIPs that were addresses of this host when it began.
    here: BTreeSet<IpAddr>,
    /// Since when none of them is here any more.
    moved: Option<Instant>,
    /// Whether it also ends when no client sends anything for [`QUIET`].
    ends_when_quiet: bool,
    /// Whether packets to some VIP are routed here, and it is no address of this host at all (mode "dsr").
    is_routed: bool,
    /// Packets of clients, and when the last one had come.
    requests: (u64, Instant),
}

/// Why a soft stop is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Over {
    Moved,
    Quiet,
    /// These are still addresses of this host.
    Late(Vec<IpAddr>),
}

impl SoftStop {
    pub(super) fn new(
        vips: impl Iterator<Item = IpAddr>,
        own: &BTreeSet<IpAddr>,
        limit: Duration,
        (ends_when_quiet, is_routed): (bool, bool),
    ) -> Self {
        let now = Instant::now();
        // Every host has an address: one without any could not be asked, and all VIPs are taken for here.
        let here = vips.filter(|vip| own.is_empty() || own.contains(vip)).collect();
        // Nothing but silence shows that a router sends them elsewhere.
        let ends_when_quiet = ends_when_quiet || is_routed;
        Self { until: now + limit, limit, here, moved: None, ends_when_quiet, is_routed, requests: (0, now) }
    }

    /// Whether it is over, by what is seen at `now`: the addresses of this host, and how many packets clients have sent.
    pub(super) fn over(&mut self, now: Instant, own: &BTreeSet<IpAddr>, requests: u64) -> Option<Over> {
        if self.requests.0 != requests {
            self.requests = (requests, now);
        }
        let left = || self.here.iter().filter(|vip| own.is_empty() || own.contains(*vip)).copied();
        let have_moved = !self.here.is_empty() && !self.is_routed && left().next().is_none();
        self.moved = have_moved.then(|| self.moved.unwrap_or(now));
        match () {
            () if self.moved.is_some_and(|since| now.duration_since(since) >= AFTER) => Some(Over::Moved),
            () if self.moved.is_some() && now >= self.until => Some(Over::Moved),
            () if self.ends_when_quiet && now.duration_since(self.requests.1) >= QUIET => Some(Over::Quiet),
            () if now >= self.until => Some(Over::Late(left().collect())),
            () => None,
        }
    }

    /// Whether nothing is here that could leave, or be sent elsewhere.
    pub(super) fn waits_for_nothing(&self) -> bool {
        self.here.is_empty() && !self.is_routed
    }

    /// When to look again.
    pub(crate) fn due(&self, now: Instant) -> Instant {
        self.until.min(now + EVERY)
    }

    /// Why it is not serving, for the verdict.
    pub(crate) fn text(&self) -> String {
        let until = if self.ends_when_quiet { "clients have another balancer" } else { "the VIPs have left this host" };
        format!("told to end: it serves on until {until}, for at most {} s; TERM ends it at once", self.limit.as_secs())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn stop(vips: &[&str], seconds: u64, ends_when_quiet: bool) -> SoftStop {
        let own = addresses(&["127.0.0.1", "192.0.2.100", "2001:db8::100"]);
        SoftStop::new(addresses(vips).into_iter(), &own, Duration::from_secs(seconds), (ends_when_quiet, false))
    }

    #[test]
    fn it_lasts_until_every_vip_has_left() {
        let mut stop = stop(&["192.0.2.100", "2001:db8::100", "203.0.113.9"], 60, false);
        let now = Instant::now();
        assert_eq!(stop.over(now, &addresses(&["127.0.0.1", "192.0.2.100", "2001:db8::100"]), 0), None);
        assert_eq!(stop.over(now, &addresses(&["127.0.0.1", "2001:db8::100"]), 0), None, "one is still here");
        assert_eq!(stop.over(now, &BTreeSet::new(), 0), None, "a host that cannot be asked has lost nothing");
        assert_eq!(stop.over(now, &addresses(&["127.0.0.1"]), 0), None, "neighbours do not know it yet");
        assert_eq!(stop.over(now + AFTER / 2, &addresses(&["127.0.0.1", "192.0.2.100"]), 0), None, "it has come back");
        assert_eq!(stop.over(now + AFTER, &addresses(&["127.0.0.1"]), 0), None);
        assert_eq!(stop.over(now + AFTER * 2, &addresses(&["127.0.0.1"]), 0), Some(Over::Moved));
    }

    /// Its list may be out of reach for a moment, as without a free descriptor.
    #[test]
    fn on_a_host_that_cannot_be_asked_all_vips_are_held() {
        let vips = addresses(&["192.0.2.100", "203.0.113.9"]);
        let mut stop = SoftStop::new(vips.into_iter(), &BTreeSet::new(), Duration::from_secs(60), (false, false));
        assert!(!stop.waits_for_nothing());
        let now = Instant::now();
        assert_eq!(stop.over(now, &BTreeSet::new(), 0), None);
        assert_eq!(stop.over(now, &addresses(&["127.0.0.1", "192.0.2.100"]), 0), None);
        assert_eq!(stop.over(now, &addresses(&["127.0.0.1"]), 0), None);
        assert_eq!(stop.over(now + AFTER, &addresses(&["127.0.0.1"]), 0), Some(Over::Moved));
    }

    #[test]
    fn its_time_is_bounded() {
        let mut stop = stop(&["192.0.2.100"], 60, false);
        let (now, own) = (Instant::now(), addresses(&["127.0.0.1", "192.0.2.100"]));
        assert_eq!(stop.over(now + Duration::from_secs(59), &own, 0), None, "silence alone ends no soft stop by TERM");
        let late = stop.over(now + Duration::from_secs(61), &own, 0);
        assert_eq!(late, Some(Over::Late(vec!["192.0.2.100".parse().unwrap()])));
    }

    /// In mode "dsr".
    #[test]
    fn where_vips_are_routed_silence_ends_it() {
        let own = addresses(&["127.0.0.1"]);
        let stop = |is_routed| {
            let vips = addresses(&["192.0.2.100"]).into_iter();
            SoftStop::new(vips, &own, Duration::from_secs(30), (false, is_routed))
        };
        assert!(stop(false).waits_for_nothing() && !stop(true).waits_for_nothing());
        let (mut stop, now) = (stop(true), Instant::now());
        assert_eq!(stop.over(now + Duration::from_secs(9), &own, 0), None);
        assert_eq!(stop.over(now + Duration::from_secs(9), &own, 7), None);
        assert_eq!(stop.over(now + Duration::from_secs(20), &own, 7), Some(Over::Quiet));
        assert_eq!(stop.over(now + Duration::from_secs(31), &own, 8), Some(Over::Late(vec![])));
    }

    #[test]
    fn a_drain_ends_when_no_client_sends_anything() {
        let mut stop = stop(&["192.0.2.100"], 300, true);
        let (now, own) = (Instant::now(), addresses(&["127.0.0.1", "192.0.2.100"]));
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(stop.over(after(9), &own, 1), None);
        assert_eq!(stop.over(after(18), &own, 1), None, "nine seconds after the last packet");
        assert_eq!(stop.over(after(20), &own, 1), Some(Over::Quiet));
    }
}
