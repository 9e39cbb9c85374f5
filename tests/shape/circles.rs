//! No circle of files: a file does not import, directly or by way of others, from one that imports from it. What a parent
//! only passes on (`pub use`) is no import, and neither is what a crate's root names, nor where a thing is seen (`pub(in ...)`).

use super::{house, sources, without_tests};
use std::collections::{BTreeMap, BTreeSet};

/// A module of one crate by its path: `["rules", "bpf"]`; the crate's root is empty.
type Module = Vec<String>;

#[test]
fn no_file_imports_from_one_that_imports_from_it() {
    let roots =
        ["src/main.rs", "supervisor/src/lib.rs", "worker/src/lib.rs", "prober/src/lib.rs", "exporter/src/lib.rs"];
    let roots = roots.map(str::to_owned);
    let libraries = std::fs::read_dir(house().join("src")).unwrap().map(|entry| entry.unwrap().path());
    let libraries = libraries.filter(|path| path.join("src/lib.rs").exists());
    let libraries = libraries.map(|path| format!("src/{}/src/lib.rs", path.file_name().unwrap().to_str().unwrap()));
    let roots: Vec<_> = roots.into_iter().chain(libraries).collect();
    assert!(roots.len() > 10, "{roots:?}");
    let mut circles = BTreeSet::new();
    for root in &roots {
        let folder = root.rsplit_once('/').unwrap().0;
        let others: Vec<_> =
            roots.iter().filter(|other| *other != root).map(|other| other.rsplit_once('/').unwrap().0).collect();
        let imports = imports(folder, &others);
        for module in imports.keys().filter(|module| !module.is_empty()) {
            let reached = reach(module, &imports);
            if reached.contains(module) {
                let circle: Vec<_> = reached.iter().filter(|other| reach(other, &imports).contains(module)).collect();
                circles.insert(format!(
                    "{folder}: {}",
                    circle.iter().map(|one| one.join("/")).collect::<Vec<_>>().join(", ")
                ));
            }
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

/// The modules below a folder, each with those that it imports from.
fn imports(folder: &str, others: &[&str]) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut texts = BTreeMap::new();
    for (file, text) in sources(&[folder]) {
        let file = file.to_str().unwrap();
        if others.iter().any(|other| other.starts_with(folder) && file.starts_with(other)) {
            continue;
        }
        let path = file[folder.len() + 1..].trim_end_matches(".rs");
        let path = path.trim_end_matches("/mod");
        let module: Module = match path {
            "lib" | "main" => Vec::new(),
            path => path.split('/').map(str::to_owned).collect(),
        };
        texts.insert(module, without_tests(&text).to_owned());
    }
    let known: BTreeSet<Module> = texts.keys().cloned().collect();
    let of = |module: &Module, text: &str| {
        let found = paths(text).into_iter().filter_map(|path| resolve(module, &path, &known));
        found.filter(|other| other != module && !other.is_empty()).collect()
    };
    texts.iter().map(|(module, text)| (module.clone(), of(module, text))).collect()
}

/// Everything that a module imports from, directly or by way of others.
fn reach(module: &Module, imports: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<Module> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![module]);
    while let Some(module) = open.pop() {
        open.extend(imports[module].iter().filter(|other| reached.insert((*other).clone())));
    }
    reached
}

/// The module that a path leads to, written in `module`; `None` for one of another crate, or of the module itself.
fn resolve(module: &Module, path: &[String], known: &BTreeSet<Module>) -> Option<Module> {
    let (mut found, mut rest) = match path.first()?.as_str() {
        "crate" => (Vec::new(), &path[1..]),
        "self" => (module.clone(), &path[1..]),
        "super" => (module.clone(), path),
        first => {
            let child = [module.as_slice(), &[first.to_owned()]].concat();
            (known.contains(&child).then(|| module.clone())?, path)
        }
    };
    while rest.first().is_some_and(|word| word == "super") {
        found.pop();
        rest = &rest[1..];
    }
    for word in rest {
        found.push(word.clone());
        if !known.contains(&found) {
            found.pop();
            break;
        }
    }
    Some(found)
}

/// Every path with at least two words in code, those of groups (`a::{b, c::d}`) one by one; not those of `pub use` and
/// `pub(in ...)`.
fn paths(text: &str) -> Vec<Vec<String>> {
    let code: String = super::code(text).flat_map(|line| [line, "\n"]).collect();
    let words = tokens(&code);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < words.len() {
        if words[at] == "pub" {
            let behind = words[at..].iter().take(8).position(|word| *word == "use");
            let ends = words[at..].iter().position(|word| [";", "{", "="].contains(word)).unwrap_or(0);
            if behind.is_some_and(|place| place < ends) {
                at += words[at..].iter().position(|word| *word == ";").unwrap_or(1);
            } else if words[at + 1..].starts_with(&["(", "in"]) {
                at += words[at..].iter().position(|word| *word == ")").unwrap_or(1);
            }
        } else if is_name(words[at]) && words.get(at + 1) == Some(&"::") {
            at = path(&words, at, &[], &mut found);
            continue;
        }
        at += 1;
    }
    found.retain(|path| path.len() > 1);
    found
}

/// Reads a path or a group of them behind `before`. Returns where it ends.
fn path(words: &[&str], mut at: usize, before: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    while at < words.len() {
        if words[at] == "{" {
            at += 1;
            while at < words.len() && words[at] != "}" {
                at = if is_name(words[at]) { self::path(words, at, &path, found) } else { at + 1 };
            }
            return at + 1;
        }
        if !is_name(words[at]) {
            break;
        }
        if words[at] != "self" || path.is_empty() {
            path.push(words[at].to_owned());
        }
        at += 1;
        if words.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    found.push(path);
    at
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Names, `::`, and every other character that is no blank by itself.
fn tokens(code: &str) -> Vec<&str> {
    let (mut words, mut rest) = (Vec::new(), code);
    while let Some(first) = rest.chars().next() {
        let length = match rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            Some(0) if rest.starts_with("::") => 2,
            Some(0) => first.len_utf8(),
            Some(length) => length,
            None => rest.len(),
        };
        let (word, more) = rest.split_at(length);
        if !first.is_whitespace() {
            words.push(word);
        }
        rest = more;
    }
    words
}
