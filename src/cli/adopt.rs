//! `ksb clouds adopt`: entries of clouds.yaml go over to the plugin, and clouds.yaml stays as it is.
//!
//! openstacksdk merges secure.yaml over clouds.yaml, `auth_type` included: a line in the user's own
//! secure.yaml is all it takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::pythons;
use super::yaml::{self, CLOUDS, Fault, Kind, Mark, PersonsFile, quoted};
use crate::cli::output::{errln, outln};
use crate::clouds::{Config, Environment, Overrides, Resolved};
use crate::error::{Code, Error, Result};

const OURS: &str = "v3broker";
const AUTH_TYPE: &str = "auth_type";
/// Plugins whose entries say all that ours needs: keystoneauth's own, and keystoneauth-websso's under the first name.
/// `v3oidcdeviceauthz`, `v3oidcclientcredentials` and `v3totp` are ours as well, but without their name another way is meant.
const THEIRS: [&str; 4] = ["v3websso", "v3oidcauthcode", "v3oidcaccesstoken", "v3multifactor"];

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["cloud", "os_cloud", "all"])), after_help = "\
clouds.yaml stays as it is: `auth_type: v3broker` is written to your own secure.yaml, which
openstacksdk and the openstack command lay over it.")]
pub(super) struct Args {
    /// Entry of clouds.yaml
    cloud: Option<String>,
    /// The same, as the `openstack` command has it
    #[arg(long, value_name = "CLOUD")]
    os_cloud: Option<String>,
    /// Every entry that can be moved; with --undo, every one that was
    #[arg(long)]
    all: bool,
    /// Take back what an earlier `ksb clouds adopt` wrote
    #[arg(long)]
    undo: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let env = Environment::of_this_process()?;
    // clap sees to it that either one is named or all are meant.
    let cloud = args.cloud.as_deref().or(args.os_cloud.as_deref());
    if args.undo { undo(&env, cloud) } else { adopt(&env, cloud) }
}

/// What is to be done with each entry.
#[derive(Default)]
struct Plan {
    /// As it is resolved now.
    adopt: Vec<(String, Resolved)>,
    already: Vec<String>,
    left: Vec<(String, Error)>,
}

impl Plan {
    /// For one entry, or for all there are; that the one cannot be moved is an error.
    fn make(env: &Environment, config: &Config<'_>, cloud: Option<&str>) -> Result<Self> {
        let names: Vec<_> = cloud.map_or_else(|| config.names().collect(), |name| vec![name]);
        if names.is_empty() {
            // The same words as for any command that finds no entry.
            config.resolve(None, &Overrides::default())?;
        }
        let mut plan = Self::default();
        for name in names {
            match entry(env, config, name) {
                Ok(Some(resolved)) => plan.adopt.push((name.to_owned(), resolved)),
                Ok(None) => plan.already.push(name.to_owned()),
                Err(error) => plan.leave(name, error, cloud)?,
            }
        }
        Ok(plan)
    }

    fn leave(&mut self, name: &str, error: Error, cloud: Option<&str>) -> Result<()> {
        if cloud.is_some() {
            return Err(error.cloud(name));
        }
        self.left.push((name.to_owned(), error));
        Ok(())
    }

    /// The new text of the file. An entry that it cannot be written for is left alone.
    fn write_into(&mut self, file: &PersonsFile, cloud: Option<&str>) -> Result<String> {
        let mut text = file.text().map(str::to_owned);
        for (name, resolved) in std::mem::take(&mut self.adopt) {
            match yaml::put(text.as_deref(), &[CLOUDS, &name, AUTH_TYPE], &OURS.into(), Mark::Adopt) {
                Ok(new) => {
                    text = Some(new);
                    self.adopt.push((name, resolved));
                }
                Err(fault) => self.leave(&name, refusal(file.path(), fault), cloud)?,
            }
        }
        Ok(text.unwrap_or_default())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.adopt.iter().map(|(name, _)| name.as_str())
    }
}

/// An entry that can be moved; nothing where it is ours already.
fn entry(env: &Environment, config: &Config<'_>, name: &str) -> Result<Option<Resolved>> {
    if name == env.get("OS_CLOUD_NAME").unwrap_or("envvars") && config.auth_type(name).is_ok() {
        let why = "it is made of OS_* variables, not of an entry in a file";
        return Err(Error::new(Code::InvalidRequest, why).remedy(format!("export OS_AUTH_TYPE={OURS}")));
    }
    let resolve = || config.resolve(Some(name), &Overrides::default());
    match config.auth_type(name).as_deref() {
        Ok(OURS) => Ok(None),
        Err(_) => resolve().map(Some),
        Ok(theirs) if THEIRS.contains(&theirs) => resolve().map(Some),
        Ok(other) => {
            let why = format!("its auth_type is `{other}`; only {} can be moved", THEIRS.join(", "));
            let remedy = format!(
                "write an entry with `auth_type: {OURS}` and the `sign_in` that is meant, such as `workload` or `password`; \
                 if the cloud offers WebSSO: `identity_provider`, `protocol`"
            );
            Err(Error::new(Code::InvalidConfig, why).remedy(remedy))
        }
    }
}

fn refusal(file: &Path, fault: Fault) -> Error {
    let (file, by_hand) = (file.display(), format!("write `auth_type: {OURS}` into that entry yourself"));
    let why = match fault {
        Fault::Says(auth_type) => format!("{file} itself says `auth_type: {auth_type}` for it"),
        Fault::Form => format!("{file} is written in a way that no line can be put in safely"),
    };
    Error::new(Code::InvalidConfig, why).remedy(by_hand)
}

fn adopt(env: &Environment, cloud: Option<&str>) -> Result<()> {
    let config = Config::load(env)?;
    let mut plan = Plan::make(env, &config, cloud)?;
    if plan.adopt.is_empty() {
        warn(config.warnings());
    } else {
        let [mut file] = PersonsFile::open([(Kind::Secure, &yaml::target(env, &config, Kind::Secure)?)])?;
        plan = move_over(env, &mut file, cloud)?;
    }
    for name in &plan.already {
        outln!("{name}: nothing to do, its auth_type is `{OURS}` already");
    }
    for (name, error) in &plan.left {
        outln!("{name}: left alone: {}", error.detail);
    }
    pythons::tell(env);
    if let Some(first) = plan.names().next() {
        outln!("Next: ksb login {}", quoted(first));
        outln!("Undo: ksb clouds adopt {} --undo", cloud.map_or_else(|| "--all".into(), quoted));
    }
    Ok(())
}

/// Writes the file, if what comes of it is what is meant.
fn move_over(env: &Environment, file: &mut PersonsFile, cloud: Option<&str>) -> Result<Plan> {
    // Another `ksb clouds adopt` may have come first: what counts is what is found now that the file is ours alone.
    let config = Config::load(env)?;
    file.must_be_read(&config)?;
    let mut plan = Plan::make(env, &config, cloud)?;
    let text = plan.write_into(file, cloud)?;
    if plan.adopt.is_empty() {
        return Ok(plan);
    }
    let shown = file.path().display().to_string();
    let mut drafted = env.clone();
    drafted.drafts.insert(file.path().to_owned(), text.clone());
    warn(&outcome(&drafted, &config, &plan).map_err(|mut error| {
        error.detail = format!("{}; {shown} is as it was", error.detail);
        error.remedy("have the auth_type changed in clouds.yaml instead")
    })?);
    let new = if file.text().is_none() { " (a new file)" } else { "" };
    file.write(Some(&text))?;
    warn(file.exposed().as_slice());

    for name in plan.names() {
        outln!("{name}: `auth_type: {OURS}` is written to {shown}{new}");
    }
    if let Some(clouds) = config.clouds_file() {
        outln!("{} is not touched", clouds.file.display());
        if clouds.current_folder && clouds.file.parent() != file.path().parent() {
            let names: Vec<_> = plan.names().collect();
            outln!("Note: {shown} also counts for other clouds.yaml files that name {}", names.join(", "));
        }
    }
    Ok(plan)
}

/// What a user should know of the entries as they are resolved then; an error where one is not as planned.
fn outcome(env: &Environment, before: &Config<'_>, plan: &Plan) -> Result<Vec<String>> {
    let after = Config::load(env)?;
    let bad = |name: &str, why: String| Err(Error::new(Code::InvalidConfig, why).cloud(name));
    let mut warnings = Vec::new();
    for (name, was) in &plan.adopt {
        let is = after.resolve(Some(name), &Overrides::default())?;
        if is.auth_type != OURS {
            return bad(name, format!("with it, the entry would still come to auth_type `{}`", is.auth_type));
        }
        let (mut ours, mut theirs) = (is.cloud, was.cloud.clone());
        (ours.source, theirs.source) = (None, None);
        if (&ours, &is.scope) != (&theirs, &was.scope) {
            return bad(name, format!("as `{OURS}` the entry would mean another cloud or scope"));
        }
        warnings.extend(is.warnings);
    }
    for name in before.names().filter(|name| plan.names().all(|ours| ours != *name)) {
        if before.auth_type(name).ok() != after.auth_type(name).ok() {
            return bad(name, "the entry would change as well, though it was not meant".into());
        }
    }
    Ok(warnings)
}

fn undo(env: &Environment, cloud: Option<&str>) -> Result<()> {
    let config = Config::load(env)?;
    let ours = |text: &str| -> Vec<String> {
        // Who changed the value of such a line has made it their own.
        let as_written =
            |name: &str| yaml::said(text, &[CLOUDS, name, AUTH_TYPE]).is_some_and(|said| said == OURS);
        let wanted = |name: &str| cloud.is_none_or(|cloud| cloud == name) && as_written(name);
        yaml::marked(text, &[AUTH_TYPE], Mark::Adopt).into_iter().filter(|name| wanted(name)).collect()
    };
    let mut found = false;
    for path in yaml::own_places(env, &config, Kind::Secure) {
        if fs::read_to_string(&path).map_or(true, |text| ours(&text).is_empty()) {
            continue;
        }
        let [mut file] = PersonsFile::open([(Kind::Secure, &path)])?;
        let mut text = file.text().unwrap_or_default().to_owned();
        let names = ours(&text);
        if names.is_empty() {
            continue; // another `ksb clouds adopt --undo` came first
        }
        for name in &names {
            let path_in = [CLOUDS, name, AUTH_TYPE];
            if let Some(out) =
                yaml::take(&text, &path_in, Mark::Adopt).map_err(|_| stuck(&path).cloud(name))?
            {
                text = out;
            }
        }
        let spent = yaml::is_spent(&text);
        file.write((!spent).then_some(&text))?;
        found = true;

        let after = Config::load(env)?;
        for name in &names {
            let is = after.auth_type(name).map_or(String::new(), |is| format!(", the auth_type is `{is}`"));
            outln!("{name}: taken out of {}{is}", path.display());
        }
        if spent {
            outln!("{} had nothing else in it and is removed", path.display());
        }
    }
    match cloud {
        _ if found => {}
        None => outln!("nothing to undo: no entry was moved by `ksb clouds adopt`"),
        Some(name) if config.auth_type(name).is_ok_and(|is| is == OURS) => {
            outln!("{name}: nothing to undo: its `auth_type: {OURS}` was not written by `ksb clouds adopt`");
        }
        Some(name) => {
            config.auth_type(name)?; // perhaps misspelt
            outln!("{name}: nothing to undo");
        }
    }
    Ok(())
}

fn stuck(file: &Path) -> Error {
    let why = format!("{} has been rewritten in a way that no line can be taken out safely", file.display());
    Error::new(Code::InvalidConfig, why).remedy("delete the lines that end in `# ksb clouds adopt` yourself")
}

/// Each once.
fn warn(warnings: &[String]) {
    let mut said = BTreeSet::new();
    for warning in warnings.iter().filter(|warning| said.insert(warning.as_str())) {
        errln!("ksb: {warning}");
    }
}
