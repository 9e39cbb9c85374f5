//! `loaded --check`, as an operator runs it: needs no root and no instance.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::process::Command;

/// What it prints of a file with these services, which must be good.
fn checked(name: &str, services: &[(&str, &str)]) -> String {
    let service = |(name, vips): &(&str, &str)| {
        format!(
            "[[service]]\nname = \"{name}\"\nvip = [{vips}]\nprotocol = \"tcp\"\nports = [80]\n\
             [[service.backend]]\naddress = \"198.51.100.11\"\n"
        )
    };
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, services.iter().map(service).collect::<String>()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loaded")).args(["--check", "-c"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn vips_that_share_backends_are_noted() {
    let two = checked("shared.toml", &[("web", "\"192.0.2.100\""), ("shop", "\"192.0.2.101\"")]);
    let notes: Vec<_> = two.lines().filter(|line| line.starts_with("note: ")).collect();
    assert!(matches!(notes[..], [note] if note.contains("shared.toml:14:11: 198.51.100.11 gets tcp port 80")), "{two}");
    let one = checked("alone.toml", &[("web", "\"192.0.2.100\"")]);
    assert!(!one.contains("note: "), "{one}");
}
