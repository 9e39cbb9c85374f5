//! Files that a TOML file includes.

use crate::schema;
use loaded_config::plan::Plan;
use loaded_config::{ConfigError, LoadedPlan, MAX_INCLUDED, Overrides, Source, load, parse};
use std::fs;
use std::path::PathBuf;

const MAIN: &str = "include = \"d/*.toml\"\n[[service]]\nname = \"web\"\nvip = \"192.0.2.100\"\nprotocol = \"tcp\"\n\
                    ports = [80]\n";
const BACKENDS: &str = "[[backend]]\nservice = \"web\"\naddress = \"198.51.100.11\"\nweight = 3\n[[backend]]\n\
                        service = \"web\"\naddress = \"198.51.100.12\"\nport = 8080\nbackup = true\n";

fn sources(texts: &[&str]) -> Vec<Source> {
    let named = |(at, text): (usize, &&str)| match at {
        0 => Source::new("main.toml", *text),
        at => Source::new(format!("{at}"), *text).included(),
    };
    texts.iter().enumerate().map(named).collect()
}

fn plan(texts: &[&str]) -> Plan {
    schema::agrees(texts[0], None);
    parse(&sources(texts), &Overrides::default()).unwrap().plan
}

fn error(texts: &[&str]) -> String {
    parse(&sources(texts), &Overrides::default()).unwrap_err().to_string()
}

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loaded-include-{}-{name}[1]", std::process::id()));
        fs::create_dir_all(path.join("d")).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self, main: &str) -> Result<LoadedPlan, ConfigError> {
        load(&[self.file("main.toml", main)], &Overrides::default())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_included_backend_is_one_of_the_service_that_it_names() {
    let inline = "[[service.backend]]\naddress = \"198.51.100.11\"\nweight = 3\n[[service.backend]]\n\
                  address = \"198.51.100.12\"\nport = 8080\nbackup = true\n";
    assert_eq!(plan(&[MAIN, BACKENDS]), plan(&[&format!("{MAIN}{inline}")]));
    let (first, second) = BACKENDS.split_at(BACKENDS.rfind("[[").unwrap());
    assert_eq!(plan(&[MAIN, first, second]), plan(&[MAIN, BACKENDS]));
    let own = "[[service.backend]]\naddress = \"198.51.100.10\"\n";
    assert_eq!(plan(&[&format!("{MAIN}{own}"), BACKENDS]).services[0].backends.len(), 3);
}

#[test]
fn services_may_be_in_included_files_alone() {
    let (include, service) = MAIN.split_at(MAIN.find("[[").unwrap());
    assert_eq!(plan(&[include, service, BACKENDS]), plan(&[MAIN, BACKENDS]));
    assert_eq!(plan(&[include, BACKENDS, service]), plan(&[MAIN, BACKENDS]));
    assert_eq!(error(&[include]), "main.toml:1:1: nothing to serve: there is no service");
}

#[test]
fn a_mistake_names_the_file_that_it_is_in() {
    for (text, expected) in [
        (
            "[[backend]]\nservice = \"wbe\"\naddress = \"198.51.100.11\"\n",
            "1:2:11: there is no service \"wbe\"; did you mean web?",
        ),
        (
            "[[backend]]\nservice = \"mail\"\naddress = \"198.51.100.11\"\n",
            "1:2:11: there is no service \"mail\"; there is web",
        ),
        ("[[backend]]\naddress = \"198.51.100.11\"\n", "1:1:1: service is missing; write service = \"…\""),
        ("[[backend]]\nservice = \"web\"\n", "1:1:1: address is missing"),
        ("[[backend]]\nservice = \"web\"\naddress = \"198.51.100.11\"\nweight = 0\n", "1:4:10: weight is 0"),
        ("backend = []\n", "1:1:11: backend is empty; name at least one or remove it"),
        ("user = \"nobody\"\n", "1:1:1: user has no place in an included file; it belongs into the file that includes"),
        ("include = \"x\"\n", "1:1:1: include has no place in an included file"),
        ("[[backnd]]\n", "1:1:3: unknown key \"backnd\" in an included file; did you mean backend?"),
        ("[[backend]]\nservice = \"web\n", "1:2:15: not TOML"),
        ("", "main.toml:4:7: service \"web\" has no backend; add at least one"),
    ] {
        let told = error(&[MAIN, text]);
        assert!(told.lines().any(|line| line.starts_with(expected)), "{text}\n{told}");
    }
    let twice = error(&[MAIN, BACKENDS, BACKENDS]);
    assert!(twice.contains("2:3:11: ") && twice.contains("(see 1:3:11)"), "{twice}");
    let pattern = error(&[&MAIN.replace("d/*", "***")]);
    assert!(pattern.starts_with("main.toml:1:11: include is \"***.toml\", no pattern of file names"), "{pattern}");
}

#[test]
fn files_are_found_from_the_directory_of_the_one_that_includes_them() {
    let scratch = Scratch::new("found");
    let backends = scratch.file("d/web.toml", BACKENDS);
    scratch.file("d/.web.toml.tmp", "half a fi");
    scratch.file("d/.hidden.toml", "half a fi");
    scratch.file("d/web.toml~", "half a fi");
    let loaded = scratch.load(MAIN).unwrap();
    assert_eq!(loaded.plan, plan(&[MAIN, BACKENDS]));
    assert_eq!(loaded.files().collect::<Vec<_>>(), [scratch.0.join("main.toml"), backends.clone()]);
    assert_eq!(loaded.notes, Vec::<String>::new());
    // By its name, absolute, by two patterns at once, and beside the file itself: each is read once.
    let absolute = format!("[\"{}\", \"d/web.toml\", \"*/*.toml\", \"*.toml\"]", backends.display());
    let loaded = scratch.load(&MAIN.replace("\"d/*.toml\"", &absolute)).unwrap();
    assert_eq!(loaded.files().collect::<Vec<_>>(), [scratch.0.join("main.toml"), backends]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let scratch = Scratch::new("unreadable");
    let own = "[[service.backend]]\naddress = \"198.51.100.10\"\n";
    let main = format!("{MAIN}{own}");
    let place = |name: &str| scratch.0.join(name).display().to_string();
    let notes = scratch.load(&main).unwrap().notes;
    let note = format!("{}:1:11: no file matches \"d/*.toml\"; nothing is included", place("main.toml"));
    assert_eq!(notes, [note]);
    let missing = scratch.load(&main.replace("d/*.toml", "d/web.toml")).unwrap_err().to_string();
    assert!(missing.starts_with(&format!("{}: cannot read the configuration", place("d/web.toml"))), "{missing}");
    fs::create_dir(scratch.0.join("d/directory.toml")).unwrap();
    let directory = scratch.load(&main).unwrap_err().to_string();
    assert_eq!(directory, format!("{}: refused: it is not a regular file", place("d/directory.toml")));
    fs::remove_dir(scratch.0.join("d/directory.toml")).unwrap();
    for n in 0..=MAX_INCLUDED {
        scratch.file(&format!("d/{n}.toml"), "");
    }
    let many = scratch.load(&main).unwrap_err().to_string();
    assert_eq!(many, format!("{}: refused: it includes 257 files; 256 are the most", place("main.toml")));
}
