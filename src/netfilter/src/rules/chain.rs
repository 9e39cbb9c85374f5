//! Our chains: their names, what hooks them in, and which of them outlive the others.

/// One chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    pub(crate) rules: Vec<String>,
}

/// Whether to ask for the chain that makes the kernel reassemble fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defrag {
    On,
    Off,
}

/// The chain that says that the table was not there before us. It survives us when we are killed.
pub(crate) fn marker(base: u16) -> String {
    format!("LOADED-{base}-T")
}

/// The chain whose rule turns defragmentation on.
pub(crate) fn defrag(base: u16) -> Chain {
    // xt_socket's check calls nf_defrag_ipv4_enable / nf_defrag_ipv6_enable for this network namespace
    // (net/netfilter/xt_socket.c), whether or not a packet can reach the rule; `CT --notrack` does not. The hook
    // is at -400, before raw at -300, so no rule of ours ever sees a fragment.
    Chain { name: format!("LOADED-{base}-D"), rules: vec!["-m socket -j RETURN".into()] }
}

/// The chains that are not removed together with the others but after the queues have drained (see `apply`).
pub(crate) fn rest(base: u16) -> [String; 2] {
    [defrag(base).name, marker(base)]
}

/// Where our chains are hooked in: the built-in chain and the jump.
pub(crate) fn hooks(base: u16) -> [(&'static str, String); 2] {
    [("PREROUTING", format!("-j LOADED-{base}")), ("OUTPUT", format!("-j LOADED-{base}-O"))]
}
