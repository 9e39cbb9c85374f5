//! A plan for the tests of crates that need one, whatever is in it.

use loaded_config::plan::Plan;
use loaded_config::{Overrides, Source, parse};

/// The smallest there is.
pub(crate) fn plan() -> Plan {
    let text = "flows = 1024\nclients = 1024\n[[service]]\nname = \"web\"\nvip = [\"192.0.2.1\"]\nprotocol = \"any\"\n\
                [[service.backend]]\naddress = \"198.51.100.1\"\n";
    parse(&[Source::new("a.toml", text)], &Overrides::default()).unwrap().plan
}
