//! Waits for a table that the kernel is still loading: at the first rule after boot its module may not be there yet, and
//! iptables gives up at once ("unable to initialize table 'raw'", seen with the legacy back end on Linux 6.12).

use crate::Error;
use std::time::{Duration, Instant};

/// At a start, before anything else waits: a slow machine takes seconds to load the modules of a table.
pub(super) const AT_START: Duration = Duration::from_secs(10);
/// While an instance serves: its loop must go on.
pub(super) const WHILE_SERVING: Duration = Duration::ZERO;
const TRY_EVERY: Duration = Duration::from_millis(200);

/// Tries `write`, once at least, until the kernel has the table, for so long at most.
///
/// # Errors
/// Those of `write`.
pub(super) fn once_loaded(wait: Duration, mut write: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        match write() {
            Err(error) if lacks_table(&error) && begun.elapsed() < wait => std::thread::sleep(TRY_EVERY),
            done => return done,
        }
    }
}

/// Whether iptables (both back ends) says that there is no such table.
fn lacks_table(error: &Error) -> bool {
    matches!(error, Error::Failed { said, .. } if said.contains("initialize"))
}
