//! What one line of a policy says: a system call, and what it demands of its arguments.

use std::borrow::Cow;

/// A descriptor by its purpose; [`super::Bindings`] gives it one or more numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fd {
    /// The netlink socket that owns the worker's queue.
    Queue,
    /// The socket to the supervisor.
    Link,
    /// A worker's socket to the prober, read only.
    Membership,
    /// The prober's socket that pings IPv4.
    Ping4,
    /// The prober's socket that pings IPv6.
    Ping6,
    /// The prober's sockets to the workers, write only.
    Workers,
    /// The prober's epoll instance.
    Epoll,
    /// The sockets that the prober opens for its checks.
    Checks,
    /// The exporter's socket that listens.
    Listener,
    /// The connections that the exporter accepts.
    Connections,
}

/// What a rule demands of one argument. Indices start at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
    /// Argument 0 is this descriptor, or one of these. Compared as 32 bits, all the kernel uses of it.
    FdIs(Fd),
    /// A pointer into the table of pinned templates, compared in all 64 bits.
    InTemplates(u8),
    /// The low bits of a pointer are zero; the alignment is a power of two.
    AlignedTo(u8, u64),
    /// An int with this value. 32 bits, all the kernel uses of an int.
    Is(u8, u32),
    /// Flags with no bit set but these. 32 bits, all the kernel uses of an int.
    OnlyBits(u8, u32),
    /// A null pointer, compared in all 64 bits.
    Null(u8),
}

/// One system call of a policy: allowed or, on the supervisor's deny list, deadly. Rules for the same call are
/// alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyscallRule {
    /// Its name.
    pub call: &'static str,
    /// Its number on this architecture.
    pub number: i64,
    /// All must hold; an empty list means any arguments.
    pub args: Cow<'static, [Arg]>,
    /// The reason why the role needs it, or must not have it.
    pub why: &'static str,
}

impl SyscallRule {
    pub(super) const fn new(
        call: &'static str,
        number: libc::c_long,
        args: &'static [Arg],
        why: &'static str,
    ) -> SyscallRule {
        SyscallRule { call, number, args: Cow::Borrowed(args), why }
    }
}
