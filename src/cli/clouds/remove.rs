//! `ksb clouds remove`

use std::fs;
use std::path::{Path, PathBuf};

use super::own::lease_of;
use crate::cli::output::outln;
use crate::cli::yaml::{self, CLOUDS, Kind, Mark, PersonsFile};
use crate::cli::{cloud_args, lease, say};
use crate::client::Client;
use crate::clouds::{Config, Environment};
use crate::error::{Code, Error, Result};

pub(super) async fn run(names: &[String]) -> Result<()> {
    let env = Environment::of_this_process()?;
    let client = cloud_args::client()?;
    for name in names {
        remove(&env, &client, name).await.map_err(|error| error.cloud(name))?;
    }
    Ok(())
}

/// The lease goes first: what is left of the files by a failure after that is good for nothing.
pub(super) async fn remove(env: &Environment, client: &Client, name: &str) -> Result<()> {
    let config = Config::load(env)?;
    let places: Vec<_> = [Kind::Clouds, Kind::Secure]
        .into_iter()
        .filter_map(|kind| written(env, &config, kind, name).map(|path| (kind, path)))
        .collect();
    // A secret alone is what is left of an `add` that was killed; beside an entry that lost its marks it is not.
    let alone = config.entries().get(name).is_none_or(|entry| entry.get("auth_type").is_none());
    if !places.iter().any(|(kind, _)| *kind == Kind::Clouds || alone) {
        return Err(not_ours(&config, name));
    }
    let mut lease = None;
    for (_, path) in &places {
        let text = fs::read_to_string(path).unwrap_or_default();
        without(&text, path, name)?;
        lease = lease.or_else(|| lease_of(&text, name));
    }
    let ended = match lease {
        Some(id) => end(client, &id).await?,
        None => "no lease stood in it; one may be left: ksb lease list".to_owned(),
    };
    for (kind, path) in &places {
        let [mut file] = PersonsFile::open([(*kind, path)])?;
        let text = without(file.text().unwrap_or_default(), path, name)?;
        let spent = yaml::is_spent(&text);
        file.write((!spent).then_some(&text))?;
        let gone = if spent { ", which had nothing else in it and is removed" } else { "" };
        outln!("{name}: taken out of {}{gone}", path.display());
    }
    outln!("{name}: {ended}");
    Ok(())
}

/// The first file with an entry of this name that is of our making.
///
/// Our lines are known by their marks, not by what they say: only so it is certain which bytes were not there before.
/// Somebody may have written an entry for a lease by hand, and that is theirs.
fn written(env: &Environment, config: &Config<'_>, kind: Kind, name: &str) -> Option<PathBuf> {
    yaml::own_places(env, config, kind).into_iter().find(|path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        yaml::marked(&text, &[], Mark::Add).iter().any(|ours| ours == name)
    })
}

fn not_ours(config: &Config<'_>, name: &str) -> Error {
    match config.auth_type(name) {
        Err(error) if error.code == Code::UnknownCloud => error,
        _ => {
            let why = "`ksb clouds add` did not write it, or another program has rewritten it since";
            let remedy = "delete it yourself; if it has a lease, `ksb lease list` shows it and `ksb lease revoke` ends it";
            Error::new(Code::InvalidRequest, why).remedy(remedy)
        }
    }
}

fn without(text: &str, path: &Path, name: &str) -> Result<String> {
    let left = yaml::take(text, &[CLOUDS, name], Mark::Add).map_err(|_| {
        let why =
            format!("{} has been rewritten in a way that no line can be taken out safely", path.display());
        let remedy = format!("delete the lines that end in `{}` yourself", Mark::Add.text().trim());
        Error::new(Code::InvalidConfig, why).remedy(remedy)
    })?;
    Ok(left.unwrap_or_else(|| text.to_owned()))
}

async fn end(client: &Client, id: &str) -> Result<String> {
    match lease::end(client, id).await {
        Ok(reply) => {
            for token in &reply.not_revoked {
                outln!("{}", say::not_revoked(&reply.lease.cloud, token));
            }
            Ok(format!("its lease has ended; {} token(s) revoked", reply.revoked))
        }
        Err(error) if error.code == Code::UnknownLease => Ok("its lease had ended before".into()),
        Err(error) => Err(error),
    }
}
