//! The keys of a classic file, and how often each may be given.

/// Everything a classic file can configure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Vip4,
    Vip4Net,
    Vip6,
    Vip6Net,
    Ns,
    FirstCore,
    LastCore,
    Rip4,
    Rip6,
    PublicNic,
    PrivateNic,
    PrivateGw,
    NfqLen,
    Server4,
    Server6,
    Strategy,
    Broadcast,
    PortAlive,
    CheckCycle,
    Failover,
}

/// How often a key may be given.
pub(super) enum Occurrence {
    /// One value in all files together.
    Once,
    /// One value in each file.
    OncePerFile,
    /// One value for each address family.
    OncePerFamily,
    /// Each adds one.
    Many,
}

impl Key {
    const ALL: [(Self, &'static str); 20] = [
        (Self::Vip4, "VIP4"),
        (Self::Vip4Net, "VIP4net"),
        (Self::Vip6, "VIP6"),
        (Self::Vip6Net, "VIP6net"),
        (Self::Ns, "NS"),
        (Self::FirstCore, "FIRST_CORE"),
        (Self::LastCore, "LAST_CORE"),
        (Self::Rip4, "RIP4"),
        (Self::Rip6, "RIP6"),
        (Self::PublicNic, "public_NIC"),
        (Self::PrivateNic, "private_NIC"),
        (Self::PrivateGw, "private_GW"),
        (Self::NfqLen, "nfq_len"),
        (Self::Server4, "server4"),
        (Self::Server6, "server6"),
        (Self::Strategy, "strategy"),
        (Self::Broadcast, "broadcast"),
        (Self::PortAlive, "port_alive"),
        (Self::CheckCycle, "check_cycle"),
        (Self::Failover, "failover"),
    ];

    pub(super) const NAMES: [&'static str; Self::ALL.len()] = {
        let mut names = [""; Self::ALL.len()];
        let mut i = 0;
        while i < names.len() {
            names[i] = Self::ALL[i].1;
            i += 1;
        }
        names
    };

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(key, _)| *key)
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(key, _)| *key == self).map_or("", |(_, name)| name)
    }

    /// The key of a service that it becomes a part of.
    pub(super) fn of_service(self) -> Option<&'static str> {
        match self {
            Self::Vip4 | Self::Vip6 => Some("vip"),
            Self::Server4 | Self::Server6 => Some("backend"),
            Self::Broadcast | Self::Rip4 | Self::Rip6 | Self::PrivateNic | Self::PrivateGw => Some("discover"),
            Self::PortAlive | Self::CheckCycle => Some("check"),
            _ => None,
        }
    }

    pub(super) fn occurrence(self) -> Occurrence {
        match self {
            Self::Ns | Self::Server4 | Self::Server6 => Occurrence::Many,
            Self::PublicNic | Self::PrivateNic | Self::PrivateGw => Occurrence::OncePerFile,
            Self::Broadcast => Occurrence::OncePerFamily,
            _ => Occurrence::Once,
        }
    }
}
