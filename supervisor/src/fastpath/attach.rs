//! Where the program is attached: at every interface that packets may come in by, as interfaces come and go.

use super::{Attachment, FastPath, Leftovers};
use crate::roster::Roster;
use loaded_fastpath::filter::Attached;
use loaded_fastpath::program::Header;
use loaded_host::{Interface, LinkHeader, reachable_interfaces};
use std::collections::BTreeSet;

impl FastPath {
    /// Whether it is attached wherever packets may come in.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// From now on the program is attached wherever packets may come in.
    pub(crate) fn open(&mut self, roster: &Roster) {
        self.is_open = true;
        self.look(roster);
    }

    /// Looks at the host: interfaces that are new, renamed or gone, and routes that have changed.
    pub(crate) fn look(&mut self, roster: &Roster) {
        if self.is_open {
            self.follow(roster);
            self.look_at_interfaces();
        }
    }

    /// Looks at interfaces that are new, renamed or gone.
    pub(crate) fn look_at_interfaces(&mut self) {
        if !self.is_open {
            return;
        }
        // Without a list nothing is known to be gone: it is looked at again soon.
        let Ok(interfaces) = reachable_interfaces() else { return };
        let is_there = |index: &u32| interfaces.iter().any(|interface| interface.index == *index);
        self.refused.retain(|index, _| is_there(index));
        let gone: Vec<_> = self.attached.keys().copied().filter(|index| !is_there(index)).collect();
        for index in gone {
            // Gone, or a port of a bridge now.
            if let Some(attachment) = self.attached.remove(&index) {
                log::info!("kernel path: detached from {}", attachment.name);
                self.detach_from(index, &attachment);
            }
        }
        for interface in interfaces {
            self.attach_to(interface);
        }
    }

    fn attach_to(&mut self, interface: Interface) {
        let Interface { name, index, header } = interface;
        if let Some(refused) = self.refused.get_mut(&index) {
            *refused = name;
            return;
        }
        // A qdisc may be removed with all its filters: it is looked at each time.
        let is_there = self.filters.is_attached(index).unwrap_or(false);
        if let Some(attachment) = self.attached.get_mut(&index)
            && is_there
        {
            attachment.name = name;
            return;
        }
        let header = match header {
            Some(LinkHeader::Ethernet) => Header::Ethernet,
            Some(LinkHeader::None) => Header::None,
            None => {
                log::info!("kernel path: packets that come in by {name} go by the queue: its link header is not known");
                self.refused.insert(index, name);
                return;
            }
        };
        match self.filters.attach(index, self.program.entry(header)) {
            Ok(attached) => {
                log::info!("kernel path: attached to {name}");
                let was_ours = self.attached.get(&index).is_some_and(|attachment| attachment.ours);
                let ours = attached == Attached::ToOurs || was_ours || self.leftovers.0.contains(&index);
                self.attached.insert(index, Attachment { name, ours });
            }
            Err(error) => {
                log::warn!("{name}: {error}; packets that come in by it go by the queue");
                self.refused.insert(index, name);
            }
        }
    }

    /// Detaches it everywhere, until it is opened again. Packets pass, so what that needs stays: see [`Leftovers`].
    pub(crate) fn close(&mut self) {
        self.is_open = false;
        for (index, attachment) in std::mem::take(&mut self.attached) {
            if attachment.ours {
                self.leftovers.0.insert(index);
            }
            self.detach_from(index, &Attachment { ours: false, ..attachment });
        }
    }

    /// Detaches it everywhere, for good.
    pub(crate) fn detach(&mut self) {
        self.is_open = false;
        for (index, attachment) in std::mem::take(&mut self.attached) {
            self.leftovers.0.remove(&index);
            self.detach_from(index, &attachment);
        }
        std::mem::take(&mut self.leftovers).remove_by(&mut self.filters);
    }

    /// What an earlier instance has left is this one's to remove.
    pub(crate) fn take_over(&mut self, leftovers: Leftovers) {
        self.leftovers.0.extend(leftovers.0);
    }

    /// Interfaces whose `clsact` is this instance's to remove.
    pub(crate) fn clsacts(&self) -> Vec<u32> {
        let attached = self.attached.iter().filter(|(_, attachment)| attachment.ours).map(|(index, _)| *index);
        let all: BTreeSet<u32> = attached.chain(self.leftovers.0.iter().copied()).collect();
        all.into_iter().collect()
    }

    fn detach_from(&mut self, index: u32, attachment: &Attachment) {
        if let Err(error) = self.filters.detach(index, attachment.ours) {
            log::warn!("{}: {error}", attachment.name);
        }
    }
}
