//! The record of a kill: who was killed, and for which system call.

use std::fmt;
use syscalls::Sysno;

/// Of a 64-bit x86 system call, and of an arm64 one (include/uapi/linux/audit.h).
#[cfg(target_arch = "x86_64")]
const OWN_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const OWN_ARCH: u32 = 0xc000_00b7;
/// Set in the numbers of the x32 interface (arch/x86/include/uapi/asm/unistd.h).
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// A kill of a process by its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeccompRecord {
    pub(super) pid: u32,
    pub(super) call: Call,
}

/// A system call, as audit names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    arch: u32,
    number: i64,
}

/// A line of /dev/kmsg: `PRIORITY,SEQUENCE,TIME,FLAGS;TEXT`. Only the kernel itself writes lines of its own facility, 0
/// (devkmsg_write), and audit puts the names a process has chosen in quotes, or in hexadecimal where they hold a quote or
/// a space (audit_log_untrustedstring), so no name can look like a field.
pub(super) fn parse(line: &[u8]) -> Option<SeccompRecord> {
    let (prefix, text) = std::str::from_utf8(line).ok()?.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    if priority >= 8 {
        return None;
    }
    let text = text.lines().next()?.strip_prefix("audit: ")?.strip_prefix("type=1326 ")?;
    let field = |name: &str| text.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let is_sigsys = field("sig")? == nix::libc::SIGSYS.to_string();
    let call = Call { arch: u32::from_str_radix(field("arch")?, 16).ok()?, number: field("syscall")?.parse().ok()? };
    let record = SeccompRecord { pid: field("pid")?.parse().ok()?, call };
    is_sigsys.then_some(record)
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arch, number } = *self;
        if arch != OWN_ARCH {
            return write!(f, "number {number} of a foreign interface (audit architecture {arch:x})");
        }
        #[cfg(target_arch = "x86_64")]
        if number > 0 && number & X32 != 0 {
            return write!(f, "number {} of the x32 interface", number & !X32);
        }
        match usize::try_from(number).ok().and_then(Sysno::new) {
            Some(call) => write!(f, "{} (system call {number})", call.name()),
            None => write!(f, "a system call without a name, {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "5,333,748160885,-;audit: type=1326 audit(1795639422.851:2): auid=4294967295 uid=0 gid=0 \
                        ses=4294967295 pid=8504 comm=\"python3\" exe=\"/usr/bin/python3\" sig=31 arch=c000003e \
                        syscall=169 compat=0 ip=0x7f64bb11f829 code=0x80000000\n";

    fn read(line: &str) -> Option<SeccompRecord> {
        parse(line.as_bytes())
    }

    #[test]
    fn a_record_names_process_and_call() {
        let call = Call { arch: 0xc000_003e, number: 169 };
        assert_eq!(read(LINE), Some(SeccompRecord { pid: 8504, call }));
        // A label of a security module, and continuation lines.
        let longer = LINE.replace(" pid=", " subj=unconfined pid=") + " SUBSYSTEM=none\n";
        assert_eq!(read(&longer), read(LINE));
    }

    #[test]
    fn nothing_else_is_one() {
        let others = [
            String::new(),
            LINE.replace("type=1326", "type=1400"),
            LINE.replace("sig=31", "sig=11"),
            LINE.replace("sig=31 ", ""),
            LINE.replace("syscall=169", "syscall=x"),
            LINE.replace("pid=8504", "ppid=8504"),
            LINE.replace("audit: type", "type"),
            LINE.replace("audit: type", "x audit: type"),
            // Written by a process: the kernel gives such lines the facility "user".
            LINE.replace("5,333", "13,333"),
        ];
        for line in others {
            assert_eq!(read(&line), None, "{line}");
        }
        // A process cannot be called like a field: the kernel writes such a name in hexadecimal, and pid comes first.
        let named = LINE.replace("\"python3\"", "\"pid=1\"");
        assert_eq!(read(&named), read(LINE));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn calls_have_names() {
        let text = |arch, number| Call { arch, number }.to_string();
        assert_eq!(text(OWN_ARCH, 169), "reboot (system call 169)");
        assert_eq!(text(OWN_ARCH, 100_000), "a system call without a name, 100000");
        assert_eq!(text(OWN_ARCH, -1), "a system call without a name, -1");
        assert_eq!(text(OWN_ARCH, X32 | 59), "number 59 of the x32 interface");
        assert_eq!(text(0x4000_0003, 11), "number 11 of a foreign interface (audit architecture 40000003)");
    }
}
