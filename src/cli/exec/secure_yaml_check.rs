//! What programs in Go lay over a command's lease, whatever its environment says.

use std::fs;
use std::path::PathBuf;

use crate::cli::lease_env::Shape;
use crate::cli::output::errln;
use crate::clouds::{self, Environment};

/// Says of each cloud whether a secure.yaml of the user's stands in its way. gophercloud/utils, which Terraform's
/// provider is built on, knows no `OS_CLIENT_SECURE_FILE`: the empty one that we name there counts for others only.
pub(super) fn warn(names: &[String], shape: Shape, env: &Environment) {
    let folders = [env.current_dir.clone(), home(env).join(".config/openstack"), "/etc/openstack".into()];
    for warning in warnings(names, shape, &folders) {
        errln!("ksb: {warning}");
    }
}

fn warnings(names: &[String], shape: Shape, folders: &[PathBuf]) -> Vec<String> {
    let places =
        ["secure.yaml", "secure.yml"].map(|name| folders.iter().map(move |folder| folder.join(name)));
    let Some(file) = places.into_iter().flatten().find(|file| file.exists()) else { return Vec::new() };
    let entries = clouds::entries_of(&file).unwrap_or_default();
    let warning = |name: &String| {
        let auth = entries.get(name)?.get("auth")?.as_object()?;
        let key = winners(shape).iter().find(|key| auth.get(**key).is_some_and(|value| !value.is_null()))?;
        Some(format!(
            "{name}: `{key}` in {} wins over this command's lease in Terraform and other programs in Go: take it out",
            file.display()
        ))
    };
    names.iter().filter_map(warning).collect()
}

/// Options that replace the lease, or that are preferred to it.
fn winners(shape: Shape) -> &'static [&'static str] {
    match shape {
        Shape::Appcred => &[
            "auth_url",
            "token",
            "password",
            "application_credential_id",
            "application_credential_name",
            "application_credential_secret",
        ],
        Shape::Password => &["auth_url", "token", "password", "username", "user_id"],
        Shape::Token => &["auth_url", "token"],
    }
}

/// As Go has it: what the system says of the user, not what `HOME` does.
fn home(env: &Environment) -> PathBuf {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let home = home_of(&users, rustix::process::getuid().as_raw());
    home.map_or_else(|| env.home.clone(), PathBuf::from)
}

fn home_of(users: &str, uid: u32) -> Option<&str> {
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut homes = fields.filter_map(|fields| match fields[..] {
        [_, _, id, _, _, home, ..] if id.parse() == Ok(uid) && !home.is_empty() => Some(home),
        _ => None,
    });
    homes.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, shape: Shape) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secure.yaml"), text).unwrap();
        let folders = ["/nonexistent".into(), folder.path().to_owned()];
        let names = ["demo".to_owned(), "other".to_owned()];
        let warnings = warnings(&names, shape, &folders);
        warnings.iter().map(|line| line.replace(folder.path().to_str().unwrap(), "HERE")).collect()
    }

    #[test]
    fn what_wins_is_told_with_its_file() {
        let text =
            "clouds:\n  demo:\n    auth: {username: me, password: hush}\n  third:\n    auth: {token: hush}\n";
        let expected = "demo: `password` in HERE/secure.yaml wins over this command's lease in Terraform and other \
                        programs in Go: take it out";
        assert_eq!(of(text, Shape::Appcred), [expected]);
        assert_eq!(of(text, Shape::Password).len(), 1);
        assert_eq!(of(text, Shape::Token), [""; 0], "a token is preferred to a password");
    }

    #[test]
    fn what_does_not_is_no_word_worth() {
        let username = "clouds:\n  demo:\n    auth: {username: me}\n";
        assert_eq!(of(username, Shape::Appcred), [""; 0]);
        assert_eq!(of(username, Shape::Password).len(), 1);
        for text in
            ["", "clouds: [", "clouds:\n  demo: {auth_type: v3broker}\n", "clouds:\n  demo:\n    auth: 1\n"]
        {
            assert_eq!(of(text, Shape::Appcred), [""; 0], "{text}");
        }
    }

    #[test]
    fn the_home_is_the_user_s_own() {
        let users = "root:x:0:0:root:/root:/bin/bash\nbroken\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!((home_of(users, 1000), home_of(users, 7)), (Some("/home/alice"), None));
    }
}
