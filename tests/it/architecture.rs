//! Which part of the crate may use which: the arrows of the design, read from the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom. Everybody may use `error`, `model` and `sync`, which use nothing but each other.
const ARROWS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("model", &[]),
    ("formats", &[]),
    ("sync", &[]),
    ("notifier", &[]),
    ("time", &[]),
    ("api", &[]),
    ("config", &["platform", "vault"]),
    ("clouds", &["platform"]),
    ("http_client", &["platform", "notifier", "time"]),
    ("platform", &["notifier", "time"]),
    ("audit", &["platform"]),
    ("client", &["api", "platform"]),
    ("dashboard", &["api", "http_client"]),
    ("keystone", &["api", "http_client", "notifier", "time"]),
    ("oidc", &["http_client", "notifier", "time"]),
    ("vault", &["api", "formats", "platform"]),
    ("http_server", &["platform"]),
    ("signin", &["api", "http_server", "keystone", "oidc", "http_client", "platform", "notifier", "time"]),
    (
        "broker",
        &[
            "api",
            "audit",
            "config",
            "dashboard",
            "formats",
            "keystone",
            "http_client",
            "platform",
            "notifier",
            "time",
            "signin",
            "vault",
        ],
    ),
    ("listen", &["api", "audit", "broker", "http_server", "platform"]),
    ("agent", &["api", "broker", "config", "http_server", "listen", "platform", "notifier", "time", "vault"]),
    (
        "cli",
        &["agent", "api", "audit", "client", "clouds", "config", "platform", "notifier", "time", "vault"],
    ),
    ("lib", &[]),
    ("main", &["cli"]),
];
const BASICS: [&str; 3] = ["error", "model", "sync"];

#[test]
fn arrows_run_one_way() {
    let mut found = BTreeMap::new();
    read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), None, &mut found);
    let known: BTreeSet<_> = ARROWS.iter().map(|(part, _)| *part).collect();
    let there: BTreeSet<_> = found.keys().map(String::as_str).collect();
    assert_eq!(there, known, "a part of the crate is new or gone: say here what it may use");

    for (part, allowed) in ARROWS {
        for (used, place) in &found[*part] {
            let basic = BASICS.contains(&used.as_str()) && *part != "sync";
            assert!(basic || allowed.contains(&used.as_str()), "{place}: {part} must not use {used}");
        }
    }
}

#[test]
fn the_allowed_arrows_form_no_circle() {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for (part, _) in ARROWS {
        let mut seen = Vec::new();
        reach(&arrows, part, &mut seen);
        assert!(!seen.contains(part), "{part} uses itself by way of others");
    }
}

/// Adds whatever can be reached along the arrows.
fn reach<'a>(arrows: &BTreeMap<&str, &'a [&'a str]>, from: &str, seen: &mut Vec<&'a str>) {
    for next in arrows.get(from).copied().unwrap_or_default() {
        if !seen.contains(next) {
            seen.push(next);
            reach(arrows, next, seen);
        }
    }
}

/// The tree in docs/architecture.md has a line for each file: its first sentence.
#[test]
fn the_document_has_every_file_of_the_sources() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    list(&sources, &mut files);
    files.sort();
    let line = |file: &PathBuf| {
        let text = fs::read_to_string(sources.join(file)).unwrap();
        let doc: Vec<_> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        let doc = doc.join(" ");
        let end = doc.find(". ").map_or(doc.len(), |at| at + 1);
        format!("| `{}` | {} |\n", file.display(), doc[..end].trim_end_matches('.').replace('|', "\\|"))
    };
    let tree: String = files.iter().map(line).collect();
    let tree = format!("<!-- tree -->\n| file | |\n|---|---|\n{tree}<!-- /tree -->");
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(&document).unwrap();
    let (before, rest) = text.split_once("<!-- tree -->").unwrap();
    let (_, after) = rest.split_once("<!-- /tree -->").unwrap();
    let written = format!("{before}{tree}{after}");
    if std::env::var_os("KSB_BLESS").is_some() {
        fs::write(&document, &written).unwrap();
    }
    assert_eq!(fs::read_to_string(&document).unwrap(), written, "KSB_BLESS=1 writes it");
}

/// The files below `src`, relative to it.
fn list(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
            files.push(path.strip_prefix(sources).unwrap().to_owned());
        }
    }
}

/// The uses of each part, with where they stand. A directory is one part; its tests count as well.
fn read(folder: &Path, part: Option<&str>, found: &mut BTreeMap<String, BTreeSet<(String, String)>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let part = part.unwrap_or(name);
        if path.is_dir() {
            read(&path, Some(part), found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let place = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
            let uses = found.entry(part.to_owned()).or_default();
            uses.extend(used_in(&text).filter(|used| used != part).map(|used| (used, place.clone())));
        }
    }
}

/// What follows `crate::` (or, in `main.rs`, the crate's name) in the code; comments do not count.
fn used_in(text: &str) -> impl Iterator<Item = String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.collect::<Vec<_>>().join(" ");
    let mut used = Vec::new();
    for start in ["crate::", "keystone_broker::"] {
        for rest in code.split(start).skip(1) {
            let group = rest.strip_prefix('{').map(top_level);
            used.extend(group.unwrap_or_else(|| vec![word(rest)]));
        }
    }
    used.into_iter().filter(|used| used.chars().all(|char| char.is_ascii_lowercase() || char == '_'))
}

/// The first words of `a::{b, c}, d}`: a and d.
fn top_level(group: &str) -> Vec<String> {
    let (mut depth, mut words) = (0, vec![word(group)]);
    for (place, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => words.push(word(&group[place + 1..])),
            _ => {}
        }
    }
    words
}

fn word(text: &str) -> String {
    text.trim_start().chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
}

/// Who forks while another test takes a port or a lock, may hold it for a moment: `support/spawn.rs` sees to that.
#[test]
fn tests_start_programs_in_one_place() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs")
                && !["bench/load.rs", "support/spawn.rs"].iter().any(|own| path.ends_with(own))
            {
                let text = fs::read_to_string(&path).unwrap();
                let calls = |name: &str| text.contains(&format!(".{name}()"));
                assert!(!calls("spawn") && !calls("output"), "{}", path.display());
            }
        }
    }
}
