//! Classic BPF for the iptables match `bpf`: a small assembler and its text form.
//!
//! The kernel (net/netfilter/xt_bpf.c, net/core/filter.c) runs the program with offset 0 at the network header;
//! a load past the end of the packet ends the program with 0, "no match". At most 64 instructions; jumps go
//! forward only; a scratch cell must be written before it is read. iptables checks none of this, the kernel
//! refuses the whole transaction.

use std::fmt;

/// `XT_BPF_MAX_NUM_INSTR`, include/uapi/linux/netfilter/xt_bpf.h.
pub(crate) const MAX_INSTRUCTIONS: usize = 64;

/// iptables-restore copies each word of a line to a buffer of 1024 bytes ("Parameter too long!",
/// iptables/xshared.c, add_param_to_argv).
pub(crate) const MAX_TEXT: usize = 1023;

/// An operation code (include/uapi/linux/bpf_common.h), named as `bpf_asm` writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Op {
    /// A = the word at k.
    LdWord = 0x20,
    /// A = the byte at k.
    LdByte = 0x30,
    /// A = the word at X + k.
    LdWordX = 0x40,
    /// A = scratch k.
    LdMem = 0x60,
    /// X = k.
    LdxImm = 0x01,
    /// X = scratch k.
    LdxMem = 0x61,
    /// X = 4 * (the byte at k & 15): the length of an IPv4 header.
    LdxHeader = 0xb1,
    /// A = the byte at X + k.
    LdByteX = 0x50,
    /// scratch k = A.
    St = 0x02,
    /// A &= k.
    And = 0x54,
    /// A *= k.
    Mul = 0x24,
    /// A += k.
    Add = 0x04,
    /// A += X.
    AddX = 0x0c,
    /// A >>= k.
    Rsh = 0x74,
    /// A ^= X.
    XorX = 0xac,
    /// A %= k; the kernel refuses k = 0.
    Mod = 0x94,
    /// X = A.
    Tax = 0x07,
    /// Skip k instructions.
    Ja = 0x05,
    /// A == k?
    Jeq = 0x15,
    /// A >= k?
    Jge = 0x35,
    /// End with k.
    Ret = 0x06,
}

/// A place in the program to jump to, given out by [`Assembler::label`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label(usize);

#[derive(Debug, Clone, Copy)]
enum Jump {
    Next,
    To(Label),
}

/// An instruction whose jumps name labels.
#[derive(Debug, Clone, Copy)]
struct Labelled {
    op: Op,
    yes: Jump,
    no: Jump,
    k: u32,
}

/// Collects instructions; jumps name labels and get their distance at the end.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    instructions: Vec<Labelled>,
    labels: Vec<usize>,
}

impl Assembler {
    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(0);
        Label(self.labels.len() - 1)
    }

    /// The label stands for the instruction that comes next.
    pub(crate) fn place(&mut self, label: Label) {
        self.labels[label.0] = self.instructions.len();
    }

    pub(crate) fn op(&mut self, op: Op, k: u32) {
        self.instructions.push(Labelled { op, yes: Jump::Next, no: Jump::Next, k });
    }

    pub(crate) fn jump_if(&mut self, op: Op, k: u32, to: Label) {
        self.instructions.push(Labelled { op, yes: Jump::To(to), no: Jump::Next, k });
    }

    pub(crate) fn jump_unless(&mut self, op: Op, k: u32, to: Label) {
        self.instructions.push(Labelled { op, yes: Jump::Next, no: Jump::To(to), k });
    }

    pub(crate) fn jump(&mut self, to: Label) {
        self.instructions.push(Labelled { op: Op::Ja, yes: Jump::To(to), no: Jump::Next, k: 0 });
    }

    /// # Panics
    /// If the program is longer than the kernel or iptables takes or jumps backwards: a mistake in this crate, for the
    /// shape of a program depends on the family and the prefix only, and the tests assemble all of them.
    pub(crate) fn finish(self) -> Program {
        assert!(self.instructions.len() <= MAX_INSTRUCTIONS, "{} BPF instructions", self.instructions.len());
        let distance = |from: usize, jump: Jump| match jump {
            Jump::Next => 0,
            Jump::To(label) => u8::try_from(self.labels[label.0] - from - 1).expect("at most 63"),
        };
        let instructions = self.instructions.iter().enumerate().map(|(at, it)| match it.op {
            Op::Ja => Instruction { op: it.op, jt: 0, jf: 0, k: distance(at, it.yes).into() },
            _ => Instruction { op: it.op, jt: distance(at, it.yes), jf: distance(at, it.no), k: it.k },
        });
        let program = Program(instructions.collect());
        assert!(program.to_string().len() <= MAX_TEXT, "{} characters of BPF", program.to_string().len());
        program
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    op: Op,
    jt: u8,
    jf: u8,
    k: u32,
}

/// A finished program. Its text is what `-m bpf --bytecode` takes and `iptables-save` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program(Vec<Instruction>);

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.len())?;
        self.0.iter().try_for_each(|i| write!(f, ",{} {} {} {}", i.op as u16, i.jt, i.jf, i.k))
    }
}

#[cfg(test)]
impl Program {
    /// What the kernel would return for this packet (`None` of a load is 0, as in net/core/filter.c).
    pub(crate) fn run(&self, packet: &[u8]) -> u32 {
        self.interpret(packet).unwrap_or(0)
    }

    fn interpret(&self, packet: &[u8]) -> Option<u32> {
        let byte = |at: u32| packet.get(at as usize).copied().map(u32::from);
        let word = |at: u32| Some(byte(at)? << 24 | byte(at + 1)? << 16 | byte(at + 2)? << 8 | byte(at + 3)?);
        let (mut a, mut x, mut scratch, mut at) = (0_u32, 0_u32, [None; 16], 0);
        loop {
            let Instruction { op, jt, jf, k } = self.0[at];
            at += 1;
            let mut branch = |yes: bool| at += usize::from(if yes { jt } else { jf });
            match op {
                Op::LdWord => a = word(k)?,
                Op::LdByte => a = byte(k)?,
                Op::LdWordX => a = word(x + k)?,
                Op::LdByteX => a = byte(x + k)?,
                Op::LdMem => a = scratch[k as usize].expect("scratch is written before it is read"),
                Op::LdxImm => x = k,
                Op::LdxMem => x = scratch[k as usize].expect("scratch is written before it is read"),
                Op::LdxHeader => x = 4 * (byte(k)? & 15),
                Op::St => scratch[k as usize] = Some(a),
                Op::And => a &= k,
                Op::Mul => a = a.wrapping_mul(k),
                Op::Add => a = a.wrapping_add(k),
                Op::AddX => a = a.wrapping_add(x),
                Op::Rsh => a >>= k,
                Op::XorX => a ^= x,
                Op::Mod => a %= k,
                Op::Tax => x = a,
                Op::Ja => at += k as usize,
                Op::Jeq => branch(a == k),
                Op::Jge => branch(a >= k),
                Op::Ret => return Some(k),
            }
        }
    }
}
