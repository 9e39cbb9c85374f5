//! Compiles the kernel program: writes a header of what it shares with this crate and with the tables, and calls clang.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, exit};

#[allow(dead_code, unreachable_pub, reason = "the crate's own file; the build needs the numbers alone")]
#[path = "src/shared.rs"]
mod shared;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("layout.h"), header()).expect("OUT_DIR can be written");
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-changed=src/shared.rs");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the architecture");
    let mut compile = Command::new(&clang);
    // -g: for BTF, by which maps are described. v3: compares and computes in 32 bits (Linux 5.1).
    compile.args(["-target", "bpfel", "-mcpu=v3", "-O2", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]);
    // The same program wherever it is built: by its bytes a supervisor knows it again.
    for (place, name) in [(out.as_path(), "/out"), (&env::current_dir().expect("a place"), "/src")] {
        compile.arg(format!("-fdebug-prefix-map={}={name}", place.display()));
    }
    // Debian has the kernel's asm headers (linux-libc-dev) in a folder for each architecture.
    compile.arg("-idirafter").arg(format!("/usr/include/{arch}-linux-gnu"));
    compile.arg("-I").arg(&out).args(["-c", "bpf/fast.bpf.c", "-o"]).arg(out.join("fast.bpf.o"));
    let problem = match compile.status() {
        Ok(status) if status.success() => return,
        Ok(status) => format!("{clang} cannot compile src/fastpath/bpf/fast.bpf.c: {status}"),
        Err(error) => format!("{clang}, which compiles the kernel program: {error}"),
    };
    eprintln!(
        "error: {problem}. On Debian: apt-get install clang linux-libc-dev. Another clang: CLANG=/path/to/clang."
    );
    exit(1);
}

fn header() -> String {
    let mut text = "/* Made by build.rs. */\n#pragma once\n".to_owned();
    let mut define = |name: &str, value: u64| {
        let suffix = if u32::try_from(value).is_ok() { "" } else { "ull" };
        writeln!(text, "#define {name} {value:#x}{suffix}").expect("a string takes all");
    };
    loaded_table::facts::facts().iter().for_each(|(name, value)| define(&format!("TABLE_{name}"), *value));
    let sizes = [
        ("MAX_BACKENDS", shared::MAX_BACKENDS),
        ("MAX_VIPS", shared::MAX_VIPS),
        ("MAX_WORKERS", shared::MAX_WORKERS),
        ("ADDRESS_BITS", shared::ADDRESS_BITS as usize),
        ("ADDRESS_BUCKETS", shared::ADDRESS_BUCKETS),
        ("ADDRESS_SLOTS", shared::ADDRESS_SLOTS),
        ("MISS_KINDS", shared::Miss::ALL.len()),
    ];
    sizes.iter().chain(shared::NUMBERS).for_each(|(name, value)| define(name, *value as u64));
    writeln!(text, "enum miss {{ {} }};", shared::Miss::CONSTANTS.join(", ")).expect("a string takes all");
    text
}
