//! The rules of the house as tests: who may import whom, which crate is whose, where time, the
//! environment and SQL may be.
//!
//! The scan is textual and on purpose simple. Comments, strings and test code do not count; a
//! re-export could fool it, and `super::super` is refused because it would. The last tests show
//! that each rule can fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::rust_text::{Code, Word, lines_with, words_of};

/// The arrows of the design: a module and the ones it may import, besides itself.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("clock", &["ids"]),
    ("config", &["ids"]),
    ("telemetry", &["config"]),
    ("lifecycle", &["ids"]),
    ("formats", &["lifecycle", "ids"]),
    ("store", &["lifecycle", "ids", "config"]),
    ("engine", &["store", "lifecycle", "clock", "ids", "formats"]),
    ("files", &["engine", "ids", "clock", "config"]),
    ("egress", &[]),
    ("ingress", FACING),
    ("handlers", FACING),
    ("delivery", SENDING),
    ("dashboard", FACING),
    ("cli", EVERYTHING),
    ("app", EVERYTHING),
];
const FACING: &[&str] =
    &["engine", "lifecycle", "files", "egress", "clock", "ids", "config", "telemetry"];
const SENDING: &[&str] =
    &["engine", "lifecycle", "egress", "clock", "ids", "config", "telemetry", "formats"];
const EVERYTHING: &[&str] = &["*"];

/// Names, and the only places that may use them.
const ONLY_IN: &[(&[&str], &[&str])] = &[
    (&["diesel", "diesel_migrations", "r2d2", "libsqlite3_sys", "pq_sys"], &["store"]),
    (&["actix_web"], &["ingress", "dashboard", "app", "cli"]),
    (&["hyper", "hyper_util", "http_body_util"], &["egress", "cli"]),
    (&["Utc::now", "Local::now", "SystemTime::now"], &["clock"]),
    (&["Uuid::now_v7"], &["ids"]),
    (&["env::var", "env::vars", "env::var_os", "env::vars_os"], &["config"]),
    (&["figment", "from_default_env", "try_from_default_env"], &["config"]),
];

/// Modules that must not know that there are vendors, and how one would notice.
const FACELESS: &[&str] = &["lifecycle", "store", "engine", "handlers", "delivery"];
const FACES: &[&str] = &["wix", "xplenty", "revai", "rev.ai", "ingest.io"];

#[test]
fn modules_import_along_the_arrows_only() {
    let files = rust_files("src");
    let modules = modules_of(&files);
    for expected in ["ids", "clock", "lifecycle", "store", "engine"] {
        assert!(modules.contains(expected), "the scan misses src/{expected}");
    }
    nothing_in(files.iter().flat_map(|(path, source)| violations(path, source, &modules)));
}

#[test]
fn every_file_says_what_it_is() {
    let files = [rust_files("src"), rust_files("tests")].concat();
    nothing_in(files.iter().filter(|(_, source)| !source.starts_with("//!")).map(|file| &file.0));
}

#[test]
fn tests_wait_for_conditions_and_never_sleep() {
    let files = [rust_files("src"), rust_files("tests")].concat();
    nothing_in(files.iter().flat_map(|(path, source)| sleeps(path, source)));
}

#[test]
fn migrations_have_the_same_names_on_both_databases_and_no_triggers() {
    let [sqlite, postgres] = ["sqlite", "postgres"].map(|backend| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(backend);
        let mut scripts = Vec::new();
        for migration in fs::read_dir(folder).expect("migrations").flatten() {
            for script in ["up.sql", "down.sql"] {
                let name = migration.file_name().to_string_lossy().into_owned();
                let sql = fs::read_to_string(migration.path().join(script));
                scripts.push((format!("{name}/{script}"), sql.expect("both scripts")));
            }
        }
        scripts.sort();
        scripts
    });
    let names = |scripts: &[(String, String)]| -> Vec<String> {
        scripts.iter().map(|(name, _)| name.clone()).collect()
    };
    assert!(!sqlite.is_empty());
    assert_eq!(names(&sqlite), names(&postgres));
    let all = [sqlite, postgres, rust_files("src")].concat();
    nothing_in(all.iter().filter(|(_, text)| makes_a_trigger(text)).map(|(name, _)| name));
}

fn makes_a_trigger(text: &str) -> bool {
    let words: Vec<String> = text.split_whitespace().map(str::to_ascii_lowercase).collect();
    words.windows(2).any(|pair| pair[0].ends_with("create") && pair[1] == "trigger")
}

#[track_caller]
fn nothing_in(found: impl Iterator<Item = impl ToString>) {
    let found: Vec<String> = found.map(|one| one.to_string()).collect();
    assert!(found.is_empty(), "against the rules of the house:\n{}", found.join("\n"));
}

/// All Rust files below a folder of the package: path from its root, text.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for entry in fs::read_dir(root.join(&folder)).expect("a folder").flatten() {
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") {
                files.push((path, fs::read_to_string(entry.path()).expect("text")));
            }
        }
    }
    files.sort();
    files
}

/// `src/store/jobs.rs` → `store`; none for `src/lib.rs` and `src/main.rs`.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let name = inside.split('/').next()?.trim_end_matches(".rs");
    (!["lib", "main"].contains(&name)).then_some(name)
}

fn modules_of(files: &[(String, String)]) -> BTreeSet<&str> {
    files.iter().filter_map(|(path, _)| module_of(path)).collect()
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("tests.rs")
}

/// What a file of the product does against the rules.
fn violations(path: &str, source: &str, modules: &BTreeSet<&str>) -> Vec<String> {
    let Some(module) = module_of(path).filter(|_| !is_test_file(path)) else {
        return Vec::new();
    };
    let code = Code::of(source);
    let words = words_of(&code.product);
    let mut found = imports(path, &words, modules)
        .into_iter()
        .filter_map(|(line, import)| {
            Some(format!("{path}:{line}: {}", complaint(module, &import, modules)?))
        })
        .collect::<Vec<_>>();
    for (names, places) in ONLY_IN {
        let allowed = places.iter().any(|place| path.starts_with(&format!("src/{place}")));
        for name in names.iter().filter(|_| !allowed) {
            let uses = lines_with(&words, name);
            found
                .extend(uses.iter().map(|line| format!("{path}:{line}: {name} is for {places:?}")));
        }
    }
    if FACELESS.contains(&module) {
        for (line, text) in code.product_with_strings.to_lowercase().lines().enumerate() {
            let known = FACES.iter().filter(|face| text.contains(**face));
            found.extend(known.map(|face| format!("{path}:{}: knows {face}", line + 1)));
        }
    }
    found
}

fn complaint(module: &str, import: &str, modules: &BTreeSet<&str>) -> Option<String> {
    if import == module {
        return None;
    }
    if !modules.contains(import) {
        return Some(format!("`{import}` after crate:: is not a module; name the module"));
    }
    match MAY_IMPORT.iter().find(|row| row.0 == module) {
        None => Some(format!("{module} has no row in MAY_IMPORT")),
        Some((_, allowed)) if allowed.contains(&"*") || allowed.contains(&import) => None,
        Some(_) => Some(format!("{module} must not import {import}")),
    }
}

fn sleeps(path: &str, source: &str) -> Vec<String> {
    let code = Code::of(source);
    let text = if is_test_file(path) { &code.product } else { &code.tests };
    let words = words_of(text);
    let calls = words.windows(2).filter(|pair| pair[0].0 == "sleep" && pair[1].0 == "(");
    calls.map(|pair| format!("{path}:{}: sleeps", pair[0].1)).collect()
}

/// The top modules that a file names, with their lines.
fn imports(path: &str, words: &[Word<'_>], modules: &BTreeSet<&str>) -> Vec<(usize, String)> {
    let parents = path.trim_end_matches("/mod.rs").matches('/').count();
    let mut found = Vec::new();
    for (at, (word, line)) in words.iter().enumerate() {
        let next = words.get(at + 1).map(|word| word.0);
        match (*word, next) {
            ("crate", Some("::")) => found.extend(first_names(&words[at + 2..])),
            ("crate", Some("as")) => found.push((*line, "as".to_owned())),
            ("super", Some("::")) if words.get(at + 2).is_some_and(|word| word.0 == "super") => {
                found.push((*line, "super::super".to_owned()));
            }
            // In the top file of a module `super` is the crate; in a module inside that file it is
            // not, so only names that are modules count.
            ("super", Some("::")) if parents == 1 => {
                let names = first_names(&words[at + 2..]);
                found.extend(names.into_iter().filter(|name| modules.contains(name.1.as_str())));
            }
            _ => {}
        }
    }
    found
}

/// `a::b` → a; `{a, b::{c, d}}` → a, b.
fn first_names(words: &[Word<'_>]) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    let (mut depth, mut at_start) = (0, true);
    for (word, line) in words {
        match *word {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => at_start = true,
            name if at_start => {
                names.push((*line, name.to_owned()));
                at_start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

const MODULES: [&str; 6] = ["engine", "store", "clock", "ingress", "config", "app"];

fn found_in(path: &str, source: &str) -> String {
    violations(path, source, &BTreeSet::from(MODULES)).join("\n")
}

#[test]
fn the_scan_reports_what_is_forbidden() {
    for (path, source, expected) in [
        ("src/engine/a.rs", "use crate::ingress::v1;", "a.rs:1: engine must not import ingress"),
        ("src/engine/a.rs", "use crate::{clock::{Clock, X},\n ingress};", "2: engine must not"),
        ("src/engine/a.rs", "fn f() { crate::app::run() }", "engine must not import app"),
        ("src/engine/mod.rs", "use super::ingress;", "engine must not import ingress"),
        ("src/engine/a.rs", "use super::super::ingress;", "`super::super` after crate::"),
        ("src/engine/a.rs", "use crate as root;", "`as` after crate::"),
        ("src/engine/a.rs", "use crate::*;", "`*` after crate::"),
        ("src/clock.rs", "use super::store::Store;", "clock must not import store"),
        ("src/novel.rs", "use crate::store;", "novel has no row in MAY_IMPORT"),
        ("src/engine/a.rs", "use diesel::prelude::*;", "diesel is for"),
        ("src/delivery/a.rs", "hyper::Request::new()", "hyper is for"),
        ("src/engine/a.rs", "let now = chrono::Utc::now();", "Utc::now is for"),
        ("src/app.rs", "let home = std::env::var(\"HOME\");", "env::var is for"),
        ("src/engine/a.rs", "let name = \"urn:Wix\";", "knows wix"),
        ("src/engine/a.rs", "#[cfg(test)]\nmod tests { a }\nuse crate::app;", "3: engine must not"),
    ] {
        let found = found_in(path, source);
        assert!(found.contains(expected), "{source}\n→ {found}");
    }
    assert_eq!(sleeps("tests/it/a.rs", "std::thread::sleep(one)").len(), 1);
    assert_eq!(sleeps("src/a.rs", "#[cfg(test)]\nmod tests { fn f() { sleep(one) } }").len(), 1);
    assert!(makes_a_trigger("create\n  TRIGGER t"));
}

#[test]
fn the_scan_leaves_alone_what_is_allowed() {
    for (path, source) in [
        ("src/engine/a.rs", "use crate::{clock::Clock, engine::b, store::{jobs, app}};"),
        ("src/engine/a.rs", "use super::ingress; pub(in crate::engine) fn f() {}"),
        ("src/engine/a.rs", "// crate::app\n/* /* crate::app */ diesel */ fn f<'a>(x: &'a str) {}"),
        (
            "src/engine/a.rs",
            "let x = (\"crate::app \\\" diesel\", r#\"crate::app\"#, '\"', b'\\'');",
        ),
        ("src/engine/a.rs", "#[cfg(test)]\nmod tests { use crate::app; fn f() { diesel } }"),
        ("src/engine/a.rs", "#[cfg(test)]\n#[path = \"b.rs\"]\nmod tests;"),
        ("src/engine/tests/b.rs", "use crate::app;"),
        ("src/store/a.rs", "use diesel::prelude::*;"),
        ("src/clock.rs", "chrono::Utc::now()"),
        ("src/cli/bench.rs", "use hyper::Request; use crate::app;"),
        ("src/engine/a.rs", "// Wix"),
        ("src/main.rs", "use crate::anything;"),
    ] {
        assert_eq!(found_in(path, source), "", "{source}");
    }
    assert!(sleeps("src/a.rs", "sleep(one)").is_empty());
    assert!(sleeps("tests/it/a.rs", "// sleep(one)").is_empty());
    assert!(!makes_a_trigger("the trigger was created"));
}
