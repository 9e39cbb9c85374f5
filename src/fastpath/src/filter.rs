//! Attaches the program at tc ingress: a filter of the interface's `clsact` qdisc, put there and taken away by rtnetlink. It needs
//! CAP_NET_ADMIN, and no bpf(2): so a supervisor that has given that up still follows interfaces that come and go.
//!
//! A filter lives as long as its interface, whatever becomes of the process. It is found again by its name, which is that of
//! the instance; those of others are not touched.

use crate::error::Error;
use loaded_netlink::{Attributes, Request, SockProtocol, Socket, attribute, number};
use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// include/uapi/linux/rtnetlink.h
const NEW_QDISC: u16 = 36;
const DEL_QDISC: u16 = 37;
const NEW_FILTER: u16 = 44;
const DEL_FILTER: u16 = 45;
const GET_FILTER: u16 = 46;
/// TCA_KIND, TCA_OPTIONS
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// include/uapi/linux/pkt_cls.h: TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT.
const FD: u16 = 6;
const NAME: u16 = 7;
const FLAGS: u16 = 8;
const ACT_DIRECT: u32 = 1;
/// include/uapi/linux/pkt_sched.h: TC_H_CLSACT, and its two hooks.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// ETH_P_ALL, in network byte order.
const ALL: u32 = 0x0003_u16.to_be() as u32;

/// Of our filters among those of an interface: behind those that others number by hand, before those that the kernel numbers.
/// A priority holds filters of one kind; if others have this one, the next ones are tried.
const PRIORITIES: std::ops::Range<u32> = 40_000..40_008;

/// What a failure is called.
const ATTACH: &str = "attach";

/// The filters of one instance.
#[derive(Debug)]
pub struct Filters {
    socket: Socket,
    name: String,
}

/// What attaching has changed beside the filter itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// Nothing.
    ToTheirs,
    /// The interface had no `clsact`.
    ToOurs,
}

/// A filter of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    priority: u32,
    handle: u32,
    name: Option<String>,
}

impl Filters {
    /// The filters of the instance with this queue base.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn open(base: u16) -> Result<Self, Error> {
        let socket = Socket::open(SockProtocol::NetlinkRoute).map_err(|e| Error::refused("open rtnetlink", e))?;
        Ok(Self { socket, name: format!("loaded-{base}") })
    }

    /// Attaches a program to an interface, in one step in place of the one that is there by this name.
    ///
    /// # Errors
    /// If the interface takes none.
    pub fn attach(&mut self, interface: u32, program: BorrowedFd<'_>) -> Result<Attached, Error> {
        let attached = self.add_qdisc(interface)?;
        let ours = self.ours(interface)?;
        let result = match ours.first() {
            Some(filter) => self.write(interface, (filter.priority, filter.handle), program),
            None => PRIORITIES
                .map(|priority| self.write(interface, (priority, 0), program))
                .find(|result| *result != Err(Errno::EINVAL))
                .ok_or_else(|| Error::Kernel {
                    act: ATTACH,
                    reason: "others have filters of all its priorities".into(),
                })?,
        };
        // More than one: an earlier version's.
        for filter in ours.iter().skip(1) {
            let _ = self.delete(interface, filter);
        }
        result.map(|()| attached).map_err(|e| Error::refused(ATTACH, e))
    }

    /// Detaches it from an interface, and removes the `clsact` that nobody uses any more if `qdisc` is set.
    ///
    /// # Errors
    /// If the kernel refuses. An interface that is gone has taken all with it.
    pub fn detach(&mut self, interface: u32, qdisc: bool) -> Result<(), Error> {
        let unless_gone = |act, result| match result {
            Err(Errno::ENODEV | Errno::ENOENT) => Ok(()),
            other => other.map_err(|e| Error::refused(act, e)),
        };
        for filter in self.ours(interface)? {
            unless_gone("detach", self.delete(interface, &filter))?;
        }
        let is_empty = |this: &mut Self, hook| this.filters(interface, hook).is_ok_and(|all| all.is_empty());
        if qdisc && is_empty(self, INGRESS) && is_empty(self, EGRESS) {
            let request = Request::new(DEL_QDISC, 0).body(&message(interface, CLSACT_HANDLE, CLSACT, 0));
            unless_gone("remove clsact", self.socket.ask(request.text(KIND, "clsact"), |_, _| ()))?;
        }
        Ok(())
    }

    /// Whether it is attached to this interface.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn is_attached(&mut self, interface: u32) -> Result<bool, Error> {
        Ok(!self.ours(interface)?.is_empty())
    }

    fn ours(&mut self, interface: u32) -> Result<Vec<Filter>, Error> {
        let mut all = self.filters(interface, INGRESS).map_err(|e| Error::refused("read the filters", e))?;
        all.retain(|filter| filter.name.as_ref() == Some(&self.name));
        Ok(all)
    }

    fn add_qdisc(&mut self, interface: u32) -> Result<Attached, Error> {
        let request = Request::new(NEW_QDISC, Request::CREATE | Request::EXCLUSIVE);
        let request = request.body(&message(interface, CLSACT_HANDLE, CLSACT, 0)).text(KIND, "clsact");
        match self.socket.ask(request, |_, _| ()) {
            Ok(()) => Ok(Attached::ToOurs),
            Err(Errno::EEXIST) => Ok(Attached::ToTheirs),
            Err(error) => Err(Error::refused("add clsact", error)),
        }
    }

    fn write(&mut self, interface: u32, (priority, handle): (u32, u32), program: BorrowedFd<'_>) -> Result<(), Errno> {
        let fd = program.as_fd().as_raw_fd();
        let mut options = Attributes::default();
        options.number(FD, fd.cast_unsigned()).text(NAME, &self.name).number(FLAGS, ACT_DIRECT);
        let request =
            Request::new(NEW_FILTER, Request::CREATE).body(&message(interface, handle, INGRESS, priority << 16 | ALL));
        self.socket.ask(request.text(KIND, "bpf").nested(OPTIONS, &options), |_, _| ())
    }

    fn delete(&mut self, interface: u32, filter: &Filter) -> Result<(), Errno> {
        let info = filter.priority << 16 | ALL;
        let request = Request::new(DEL_FILTER, 0).body(&message(interface, filter.handle, INGRESS, info));
        self.socket.ask(request.text(KIND, "bpf"), |_, _| ())
    }

    /// All filters at a hook of an interface, of whatever kind.
    fn filters(&mut self, interface: u32, hook: u32) -> Result<Vec<Filter>, Errno> {
        let request = Request::new(GET_FILTER, Request::DUMP).body(&message(interface, 0, hook, 0));
        let mut all = Vec::new();
        self.socket.ask(request, |kind, body| {
            if kind == NEW_FILTER
                && let Some(filter) = Filter::read(body)
            {
                all.push(filter);
            }
        })?;
        Ok(all)
    }
}

impl Filter {
    /// `None` for what is no filter: the kernel tells of each priority first, with a handle of 0.
    fn read(body: &[u8]) -> Option<Self> {
        let (handle, info) = (number(body, 8)?, number(body, 16)?);
        let attributes = body.get(MESSAGE..)?;
        let is_bpf = attribute(attributes, KIND) == Some(b"bpf\0");
        let name = attribute(attributes, OPTIONS).filter(|_| is_bpf).and_then(|options| {
            let name = attribute(options, NAME)?;
            Some(String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned())
        });
        (handle != 0 || name.is_some()).then_some(Self { priority: info >> 16, handle, name })
    }
}

/// Bytes of a `struct tcmsg`.
const MESSAGE: usize = 20;

/// `struct tcmsg` (include/uapi/linux/rtnetlink.h). `info`: priority and protocol.
fn message(interface: u32, handle: u32, parent: u32, info: u32) -> [u8; MESSAGE] {
    let mut raw = [0; MESSAGE];
    for (at, number) in [(4, interface), (8, handle), (12, parent), (16, info)] {
        raw[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    raw
}
