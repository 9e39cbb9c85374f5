//! Waits for a table that the kernel is still loading: at the first rule after boot its module may not be there yet, and
//! iptables gives up at once ("unable to initialize table 'raw'", seen with the legacy back end on Linux 6.12).

use crate::Error;
use std::time::{Duration, Instant};

/// A slow machine takes seconds to load the modules of a table.
const WAIT: Duration = Duration::from_secs(10);
const TRY_EVERY: Duration = Duration::from_millis(200);

/// Tries `write` until the kernel has the table, for [`WAIT`] at most.
///
/// # Errors
/// Those of `write`.
pub(super) fn once_loaded(mut write: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        match write() {
            Err(error) if lacks_table(&error) && begun.elapsed() < WAIT => std::thread::sleep(TRY_EVERY),
            done => return done,
        }
    }
}

/// Whether iptables (both back ends) says that there is no such table.
fn lacks_table(error: &Error) -> bool {
    matches!(error, Error::Failed { said, .. } if said.contains("initialize"))
}
