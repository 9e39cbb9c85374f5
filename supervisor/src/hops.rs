//! Next hops of mode "dsr": a backend's link address, by the interface of the network it is in.

use crate::roster::Roster;
use loaded_host::ConnectedNetworks;
use loaded_ipc::Mode;
use loaded_netfilter::routes::{Error, Hop, Hops};

/// The hops that a roster's packets need, those of backends that leave included.
///
/// # Errors
/// [`Error::NotConnected`], [`Error::Unread`]
pub(crate) fn hops(roster: &Roster) -> Result<Hops, Error> {
    let is_direct = |service| roster.service(service).is_some_and(|entry| entry.service.mode == Mode::Dsr);
    let mut direct = roster.backends().filter(|(_, backend)| is_direct(backend.service)).peekable();
    // A router has many routes.
    let networks = match direct.peek() {
        Some(_) => ConnectedNetworks::read().map_err(Error::Unread)?,
        None => ConnectedNetworks::default(),
    };
    direct
        .map(|(index, backend)| {
            let interface = networks.interface(backend.address).ok_or(Error::NotConnected(backend.address))?.to_owned();
            Ok((index.0, Hop { address: backend.address, interface }))
        })
        .collect()
}
