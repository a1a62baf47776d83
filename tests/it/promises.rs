//! What README.md and SECURITY.md promise is shown by tests; and no text has a user install what others may publish.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// `tests/promises.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promises {
    promise: Vec<Promise>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promise {
    document: String,
    sentence: String,
    tests: Vec<String>,
}

#[test]
fn every_promise_is_in_its_document_and_its_tests_exist() {
    let list = fs::read_to_string(root().join("tests/promises.toml")).unwrap();
    let promises = toml::from_str::<Promises>(&list).unwrap().promise;
    let failures: Vec<_> = promises.iter().flat_map(failures_of).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn failures_of(promise: &Promise) -> Vec<String> {
    let Promise { document, sentence, tests } = promise;
    let mut failures = Vec::new();
    let text = fs::read_to_string(root().join(document)).unwrap();
    if sentence.is_empty() || !normalised(&text).contains(&normalised(sentence)) {
        failures.push(format!("{document} does not say: {sentence}"));
    }
    if tests.is_empty() {
        failures.push(format!("{document}: no test shows: {sentence}"));
    }
    let gone = tests.iter().filter(|test| !exists(test));
    failures.extend(gone.map(|test| format!("{document}: there is no test {test} to show: {sentence}")));
    failures
}

/// The words with one space between them, wherever the lines end.
fn normalised(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether there is a test of this path: `lib::` in the library, `plugin::` in the plugin, any other below tests/it.
fn exists(test: &str) -> bool {
    let Some((module, name)) = test.rsplit_once("::") else { return false };
    let (keyword, files) = if let Some(module) = module.strip_prefix("plugin::") {
        ("def", vec![format!("plugin-shim/tests/{module}.py")])
    } else if let Some(module) = module.strip_prefix("lib::") {
        ("fn", files_of("src", module.trim_end_matches("::tests")))
    } else {
        ("fn", files_of("tests/it", module))
    };
    let start = format!("{keyword} {name}(");
    let begins = |line: &str| line.trim_start().trim_start_matches("async ").starts_with(&start);
    let mut texts = files.iter().filter_map(|file| fs::read_to_string(root().join(file)).ok());
    texts.any(|text| text.lines().any(begins))
}

/// Where the module may be.
fn files_of(directory: &str, module: &str) -> Vec<String> {
    let path = module.replace("::", "/");
    vec![format!("{directory}/{path}.rs"), format!("{directory}/{path}/mod.rs")]
}

const INSTALLERS: [&str; 9] = [
    "cargo install ",
    "pip install ",
    "pipx install ",
    "uv tool install ",
    "apt install ",
    "apt-get install ",
    "dnf install ",
    "brew install ",
    "npm install ",
];
/// Anybody may register these at a package registry.
const NOT_OURS: [&str; 2] = ["keystone-broker", "keystoneauth-broker"];
const TEXTS: [&str; 8] = [
    "src",
    "docs",
    "packaging",
    "plugin-shim/keystoneauth_broker",
    "plugin-shim/README.md",
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
];

#[test]
fn no_text_names_an_install_command_for_a_name_that_is_not_ours() {
    assert!(installs_a_name_that_is_not_ours("Try: python3 -m pip install --user 'keystoneauth_broker>=1'"));
    assert!(!installs_a_name_that_is_not_ours("pip install ./plugin-shim   # in a clone of keystone-broker"));

    let mut found = Vec::new();
    for path in TEXTS.iter().flat_map(|text| files_below(root().join(text))) {
        // Not everything is text: docs/ has a picture.
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| installs_a_name_that_is_not_ours(line));
        found.extend(lines.map(|line| format!("{}: {}", path.display(), line.trim())));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn installs_a_name_that_is_not_ours(line: &str) -> bool {
    let commands = INSTALLERS.iter().flat_map(|installer| line.split(installer).skip(1));
    let mut arguments = commands.flat_map(|rest| {
        // What follows the command is a comment, or prose.
        rest.split(['#', '`', ';', '|', '&']).next().unwrap_or_default().split_whitespace()
    });
    arguments.any(|argument| NOT_OURS.contains(&&*package(argument)))
}

/// The package's name without quotes, extras and versions, as registries compare it. A path keeps its slashes.
fn package(argument: &str) -> String {
    let name = argument.trim_start_matches(['"', '\'']).to_lowercase().replace('_', "-");
    name.chars().take_while(|char| char.is_ascii_alphanumeric() || ['-', '/'].contains(char)).collect()
}

fn files_below(path: PathBuf) -> Vec<PathBuf> {
    if path.ends_with("__pycache__") {
        return Vec::new();
    }
    if path.is_file() {
        return vec![path];
    }
    fs::read_dir(path).unwrap().flat_map(|entry| files_below(entry.unwrap().path())).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
