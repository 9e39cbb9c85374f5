//! Our chains: their names, their hooks, and which of them are removed last.

/// One chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    pub(crate) rules: Vec<String>,
}

/// The matches that rules can do without where a kernel lacks them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Matches {
    /// xt_socket, by which the kernel reassembles fragments. Without it they are handed to the workers.
    pub(crate) socket: bool,
    /// xt_rpfilter, which asks for the route to a source (net/ipv4/netfilter/ipt_rpfilter.c, net/ipv6/netfilter/ip6t_rpfilter.c).
    /// Without it packets in a backend's name are believed, by whatever interface they come.
    pub(crate) rpfilter: bool,
}

impl Matches {
    pub(crate) const NONE: Self = Self { socket: false, rpfilter: false };

    /// These, and then what is left of them where one or both are missing.
    pub(crate) fn and_less(self) -> Vec<Self> {
        let mut all = vec![self];
        for less in [Self { socket: false, ..self }, Self { rpfilter: false, ..self }, Self::NONE] {
            if !all.contains(&less) {
                all.push(less);
            }
        }
        all
    }
}

/// The chain that marks the table as created by us. It survives if we are killed.
pub(crate) fn marker(base: u16) -> String {
    format!("LOADED-{base}-T")
}

/// The chain whose rule turns on defragmentation.
pub(crate) fn defrag(base: u16) -> Chain {
    // xt_socket's check calls nf_defrag_ipv4_enable / nf_defrag_ipv6_enable for this network namespace
    // (net/netfilter/xt_socket.c), whether or not a packet can reach the rule; `CT --notrack` does not. The hook
    // is at -400, before raw at -300, so no rule of ours ever sees a fragment.
    Chain { name: format!("LOADED-{base}-D"), rules: vec!["-m socket -j RETURN".into()] }
}

/// The chains that are removed last, after the queues have drained (see `removal`).
pub(crate) fn rest(base: u16) -> [String; 2] {
    [defrag(base).name, marker(base)]
}

/// Our hooks: built-in chain and jump.
pub(crate) fn hooks(base: u16) -> [(&'static str, String); 2] {
    [("PREROUTING", format!("-j LOADED-{base}")), ("OUTPUT", format!("-j LOADED-{base}-O"))]
}
