//! A clouds.yaml from a repository that somebody else wrote.

use std::fs;
use std::sync::LazyLock;

use keystone_broker::clouds::{Config, Environment, Overrides};
use keystone_broker::model::Cloud;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

pub fn feed(bytes: &[u8]) {
    let folder = FOLDER.path();
    fs::write(folder.join("clouds.yaml"), bytes).unwrap();
    let env = Environment { current_dir: folder.into(), home: folder.join("home"), ..Environment::default() };
    let Ok(config) = Config::load(&env) else { return };
    for name in config.names().map(str::to_owned).collect::<Vec<_>>() {
        let Ok(resolved) = config.resolve(Some(&name), &Overrides::default()) else { continue };
        let cloud = resolved.cloud;
        assert!(["http", "https"].contains(&cloud.auth_url.scheme()));
        assert!(cloud.source.as_ref().is_some_and(|source| source.current_folder), "it must be asked about");
        // It reaches the agent as it is.
        let sent = serde_json::to_string(&cloud).unwrap();
        assert_eq!(serde_json::from_str::<Cloud>(&sent).unwrap(), cloud);
    }
}
