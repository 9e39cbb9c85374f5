//! Which local ports this host's own connections have.

use loaded_ipc::PortRange;

/// net.ipv4.ip_local_port_range, which holds for both families; `None` if it cannot be read.
#[must_use]
pub fn own_ports() -> Option<PortRange> {
    parse(&std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?)
}

fn parse(text: &str) -> Option<PortRange> {
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    let range = PortRange { low: numbers.next()??, high: numbers.next()?? };
    (range.low <= range.high).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_writes_two_numbers() {
        assert_eq!(parse("32768\t60999\n"), Some(PortRange { low: 32768, high: 60999 }));
        for bad in ["", "32768", "a b", "5 4", "1 70000"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
