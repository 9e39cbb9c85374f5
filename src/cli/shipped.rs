//! Manual pages and completions are made of the command line's definition and kept in the tree, so that a package needs no
//! build of its own: they must say what it says. `LOADED_BLESS=1 cargo test -p loaded --bin loaded shipped` writes them anew.

use super::*;
use clap::Command;
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const PAGES: &str = "docs/man";
const COMPLETIONS: &str = "scripts/completions";

/// What `loaded(8)` says beyond its options.
const MORE: &str = r#".SH EXIT STATUS
0 on success, 1 on failure, 2 for a mistake on the command line. \fBloaded\-health\fR(8) has codes of its own.
.SH SIGNALS
To the supervisor, whose process id \fBloaded status\fR shows:
.TP
\fBHUP\fR
Read the configuration again and change over without losing a packet. A bad file changes nothing.
.TP
\fBTERM\fR, \fBINT\fR, \fBQUIT\fR
Remove the rules, let the workers answer what still waits, and end.
.TP
\fBUSR1\fR
Log the counters, one line for each worker.
.TP
\fBUSR2\fR
Upgrade: the binary now at the path of this one takes over without losing a packet or a connection.
.PP
If the supervisor was killed, start it again: it takes over the workers that went on. Under a service manager
(\fBNOTIFY_SOCKET\fR is set) it stays in the foreground.
.SH FILES
.TP
\fIloaded.config\fR, \fIloaded.conf\fR, \fI/etc/loaded/loaded.toml\fR, \fI/etc/loaded/loaded.config\fR
The configuration: without \fB\-c\fR the first of these that exists, the first two in the working directory. A name that ends
in \fI.toml\fR is in the format of \fBloaded.toml\fR(5), every other in that of \fBloaded.config\fR(5).
.TP
\fI/run/loaded/control\-PID.sock\fR
The control socket, which the commands ask. It answers root alone.
.TP
\fI/var/run/empty\fR
The children chroot there. It must be empty, and root's.
.SH EXAMPLES
.TP
\fBloaded \-\-check \-c loaded.toml\fR
Validate a configuration and print what would be served.
.TP
\fBloaded doctor \-c loaded.toml\fR
What on this host stands in the way of it?
.TP
\fBloaded \-D \-U loaded \-c loaded.toml\fR
Serve, in the foreground.
.TP
\fBloaded \-\-check \-\-diff\fR
What would HUP change?
.TP
\fBloaded backend drain 198.51.100.11 \-\-deadline 5m\fR
Take a backend out gently.
.TP
\fBloaded explain tcp 192.0.2.7:40000 203.0.113.1:443\fR
Where would this client's next packet go, and why?
.SH SEE ALSO
\fBloaded.toml\fR(5), \fBloaded.config\fR(5), \fBiptables\fR(8)
"#;

const SEE_ALSO: &str = ".SH SEE ALSO\n\\fBloaded\\fR(8)\n";

/// `loaded(8)`, and a page for each command below it: by their names.
fn pages() -> BTreeMap<String, String> {
    // A page for `help` would say nothing.
    let mut command = CommandLine::command().disable_help_subcommand(true);
    command.build();
    let mut pages = BTreeMap::new();
    let mut waiting = vec![command];
    while let Some(command) = waiting.pop() {
        waiting.extend(command.get_subcommands().cloned());
        let name = command.get_display_name().unwrap_or("loaded").to_owned();
        pages.insert(format!("{name}.8"), page(command, if name == "loaded" { MORE } else { SEE_ALSO }));
    }
    pages
}

fn page(command: Command, more: &str) -> String {
    let has_options = command.get_arguments().any(|argument| !argument.is_hide_set());
    let has_subcommands = command.has_subcommands();
    let man = Man::new(command).section("8").manual("loaded").source(concat!("loaded ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    man.render_title(&mut text).unwrap();
    man.render_name_section(&mut text).unwrap();
    man.render_synopsis_section(&mut text).unwrap();
    man.render_description_section(&mut text).unwrap();
    if has_options {
        man.render_options_section(&mut text).unwrap();
    }
    if has_subcommands {
        man.render_subcommands_section(&mut text).unwrap();
    }
    String::from_utf8(text).unwrap() + more
}

fn completions() -> BTreeMap<String, String> {
    let shells = [(Shell::Bash, "loaded.bash"), (Shell::Fish, "loaded.fish"), (Shell::Zsh, "_loaded")];
    let complete = |shell| {
        let mut text = Vec::new();
        generate(shell, &mut CommandLine::command(), "loaded", &mut text);
        String::from_utf8(text).unwrap()
    };
    shells.into_iter().map(|(shell, name)| (name.to_owned(), complete(shell))).collect()
}

/// Compares the files of a folder with what they should be; `is_made`: which of its files are made so.
fn compare(folder: &str, made: &BTreeMap<String, String>, is_made: impl Fn(&str) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let bless = std::env::var_os("LOADED_BLESS").is_some();
    for (name, text) in made.iter().filter(|_| bless) {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), text).unwrap();
    }
    let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let kept: BTreeMap<String, String> = names
        .filter(|name| is_made(name))
        .map(|name| (name.clone(), fs::read_to_string(folder.join(&name)).unwrap()))
        .collect();
    assert!(made.keys().eq(kept.keys()), "in {}: {:?}, not {:?}", folder.display(), kept.keys(), made.keys());
    for (name, text) in made {
        assert!(kept[name] == *text, "{}/{name} is not what the command line says", folder.display());
    }
}

#[test]
fn every_command_has_its_manual_page() {
    let pages = pages();
    assert!(pages.contains_key("loaded-backend-drain.8"), "{:?}", pages.keys());
    compare(PAGES, &pages, |name| name.ends_with(".8"));
}

#[test]
fn three_shells_complete_the_command_line() {
    compare(COMPLETIONS, &completions(), |_| true);
}
