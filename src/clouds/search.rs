//! Where openstacksdk looks for clouds.yaml, secure.yaml and clouds-public.yaml, and which one it takes.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Environment, yaml};
use crate::error::reason;
use crate::model::Source;

/// The file that was taken.
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) content: Value,
}

/// The first file that can be read and parsed. As in `OpenStackConfig._load_yaml_json_file` all others are
/// passed over, a broken one too; what a user would want to know of them is added to `notes`.
pub(super) fn first(
    env: &Environment,
    stem: &str,
    variable: Option<&str>,
    notes: &mut Vec<String>,
) -> Option<Found> {
    if let Some(variable) = variable
        && let Some(value) = env.get(variable)
    {
        // Neither the SDK nor we expand `~` here: shells do.
        let path = env.current_dir.join(value);
        if !path.exists() && !env.drafts.contains_key(&path) {
            notes.push(format!("{variable} names {}, which does not exist", path.display()));
        } else if let Some(content) = read(env, &path, notes) {
            return Some(Found { source: Source { file: path, current_folder: false }, content });
        }
    }
    if let Some(source) = variable.zip(env.outer.as_ref()).and_then(|(variable, outer)| outer.file(variable))
        && let Some(content) = read(env, &source.file, notes)
    {
        return Some(Found { source: source.clone(), content });
    }
    let folders = folders(env);
    for (place, folder) in folders.iter().enumerate() {
        if folders[..place].contains(folder) {
            continue; // ~/.config comes twice
        }
        for suffix in ["yaml", "yml", "json"] {
            let path = folder.join(format!("{stem}.{suffix}"));
            if let Some(content) = read(env, &path, notes) {
                // A user who stands in their own configuration directory is not in someone else's repository.
                let current_folder = place == 0 && !folders[1..].contains(folder);
                return Some(Found { source: Source { file: path, current_folder }, content });
            }
        }
    }
    None
}

/// `openstack.config.loader.CONFIG_SEARCH_PATH` with platformdirs' rules for Linux.
pub(super) fn folders(env: &Environment) -> [PathBuf; 5] {
    let xdg_home = env.get("XDG_CONFIG_HOME").map(Path::new).filter(|path| path.is_absolute());
    // In a snap HOME is the snap's own.
    let home = env.get("SNAP_REAL_HOME").map_or(env.home.as_path(), Path::new);
    let site: Vec<_> = env
        .get("XDG_CONFIG_DIRS")
        .unwrap_or_default()
        .split(':')
        .filter(|folder| folder.starts_with('/'))
        .map(|folder| format!("{}/openstack", folder.trim_end_matches('/')))
        .collect();
    [
        env.current_dir.clone(),
        xdg_home.map_or_else(|| env.home.join(".config"), Path::to_owned).join("openstack"),
        home.join(".config/openstack"),
        // Several directories are joined to one path that no file has (`multipath=True`): the SDK looks in none.
        if site.is_empty() { "/etc/xdg/openstack".into() } else { site.join(":").into() },
        "/etc/openstack".into(),
    ]
}

/// The content; nothing when there is no such file or it was passed over.
fn read(env: &Environment, path: &Path, notes: &mut Vec<String>) -> Option<Value> {
    let name = path.display();
    let text = match env.drafts.get(path).map_or_else(|| fs::read_to_string(path), |draft| Ok(draft.clone()))
    {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return None,
        Err(error) => {
            notes.push(format!("{name} was skipped: {}", reason(&error)));
            return None;
        }
    };
    // The SDK asks for the ending `json`, with or without a dot.
    let parsed = if path.as_os_str().as_encoded_bytes().ends_with(b"json") {
        serde_json::from_str(&text).map_err(|error| {
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default().to_owned();
            yaml::Fault { line: error.line(), column: error.column(), what }
        })
    } else {
        yaml::parse(&text)
    };
    match parsed {
        Ok(content) => Some(content),
        Err(yaml::Fault { line, column, what }) => {
            notes.push(format!("{name} was skipped: line {line}, column {column}: {what}"));
            None
        }
    }
}
