//! What our rules have counted of packets in a backend's name that came by an interface which no route to the backend leads
//! through, and were taken for no reply.

use crate::{Family, Tools};

/// How many there were in both families, since the rules of the instance with this queue base were written last. A family whose
/// rules cannot be read has none.
#[must_use]
pub fn refused_replies(tools: &Tools, base: u16) -> u64 {
    let of = |family| tools.save_with_counts(family).map_or(0, |saved| counted(&saved, base));
    Family::ALL.into_iter().map(of).fold(0, u64::saturating_add)
}

/// What it means that there were so many.
#[must_use]
pub fn refused_replies_text(count: u64) -> String {
    format!(
        "{count} packets in a backend's name came by an interface that no route to the backend leads through, and were \
         taken for no reply: they are forged, or backends answer by another way than they are asked; look: ip route get \
         BACKEND; then mend the routes, or write asymmetric = true"
    )
}

/// The chains that have such rules.
pub(super) fn chains_of_refusals(base: u16) -> [String; 2] {
    ["F", "I"].map(|suffix| format!("LOADED-{base}-{suffix}"))
}

/// `saved` is the output of `iptables-save -c`, where a rule is `[packets:bytes] -A CHAIN ...`.
pub(super) fn counted(saved: &str, base: u16) -> u64 {
    let chains = chains_of_refusals(base);
    let count = |line: &str| {
        let (counts, rule) = line.strip_prefix('[')?.split_once("] -A ")?;
        let (chain, rest) = rule.split_once(' ')?;
        let ours = chains.iter().any(|name| name == chain) && rest.contains("-m rpfilter --invert ");
        if ours { counts.split(':').next()?.parse::<u64>().ok() } else { None }
    };
    saved.lines().filter_map(count).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rules_of_this_instance_refused_is_counted() {
        let saved = "*raw\n:LOADED-3-F - [0:0]\n[7:420] -A LOADED-3-F -m rpfilter --invert -j RETURN\n\
                     [9:540] -A LOADED-3-F -g LOADED-3-R\n[2:80] -A LOADED-4-F -m rpfilter --invert -j RETURN\n\
                     [4:99] -A LOADED-3-I -m bpf --bytecode \"1,6 0 0 0\" -m rpfilter --invert -j RETURN\n\
                     [1:1] -A PREROUTING -m rpfilter --invert -j DROP\nCOMMIT\n";
        assert_eq!((counted(saved, 3), counted(saved, 4), counted(saved, 5)), (11, 2, 0));
    }
}
