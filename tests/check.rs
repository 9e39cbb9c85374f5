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
    // A host without what every start needs is no fault of the file.
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.lines().all(|line| line.contains("the configuration is good, but")), "{errors}");
    assert_eq!(output.status.success(), errors.is_empty(), "{errors}");
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

#[test]
fn every_mistake_is_shown_with_its_line_and_the_file_is_named() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("three.toml");
    let text = "[[service]]\nname = \"web\"\nvip = \"192.0.2.100/32\"\nprotocol = \"tcp\"\nports = 80\n\
                [[service.backend]]\naddress = \"198.51.100.11\"\nweight = 0\n";
    std::fs::write(&path, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loaded")).args(["--check", "-c"]).arg(&path).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{errors}");
    for (place, line, caret) in [
        ("3:7", "3 | vip = \"192.0.2.100/32\"", "^^^^^^^^^^^^^^^^"),
        ("5:9", "5 | ports = 80", "^^"),
        ("8:10", "8 | weight = 0", "^"),
    ] {
        let column: usize = place.split_once(':').unwrap().1.parse().unwrap();
        let shown = format!("{line}\n  | {}{caret}\n", " ".repeat(column - 1));
        assert!(errors.contains(&format!("loaded: error: {}:{place}: ", path.display())), "{place}:\n{errors}");
        assert!(errors.contains(&shown), "{place}:\n{errors}");
    }
    let good = checked("named.toml", &[("web", "\"192.0.2.100\"")]);
    let named = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("named.toml");
    assert!(good.contains(&format!("file         {}\n", named.display())), "{good}");
    assert!(good.contains("not examined "), "{good}");
}
