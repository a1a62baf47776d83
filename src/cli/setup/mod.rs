//! `ksb setup`: from whatever a user has, a dashboard's address for one, to an entry of clouds.yaml that works.
//!
//! What comes from the network is shown to the user before anything is sent there: a page could name any Keystone.

mod ask;
mod source;
mod write;

use clap::builder::NonEmptyStringValueParser;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use url::Url;

use self::ask::Person;
use self::source::Known;
use super::sign_in::interactive;
use super::yaml::quoted;
use super::{cloud_args, login, projects, pythons};
use crate::api::{Choice, CloudRequest, DiscoverReply, DiscoverRequest, Found, ProbeReply, Reach};
use crate::cli::output::{errln, outln, printable};
use crate::client::Client;
use crate::clouds::{Config, Environment, Overrides};
use crate::error::{Code, Error, Result};
use crate::model::Cloud;

const OURS: &str = "v3broker";

#[derive(clap::Args)]
#[command(after_help = "\
ADDRESS is that of the dashboard (Horizon, Skyline) or of Keystone; FILE an openrc, which is read and not run, or a
clouds.yaml. What that does not tell is asked for; without a terminal the options say it. Passwords and secrets in
a FILE are not taken over.")]
pub(super) struct Args {
    /// Address of the dashboard or of Keystone, or a file
    #[arg(value_name = "ADDRESS|FILE")]
    from: Option<String>,
    /// What to call the entry
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// Entry of a clouds.yaml that is given, where it has several
    #[arg(long, value_name = "NAME")]
    entry: Option<String>,
    /// Keystone's name for the identity provider
    #[arg(long, value_name = "NAME")]
    identity_provider: Option<String>,
    /// Keystone's name for the federation protocol, such as openid or saml2
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    /// The entry's project
    #[arg(long, value_name = "NAME")]
    project_name: Option<String>,
    /// Port of the callback that the operator lists in `trusted_dashboard` [default: 9990]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    redirect_port: Option<u16>,
    /// CA that signed the certificates of dashboard and Keystone, PEM
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Do not sign in to try it
    #[arg(long)]
    no_sign_in: bool,
    /// Take addresses with http, which anyone on the way can change
    #[arg(long)]
    plain_http: bool,
    /// Ask for no confirmation: trust what is found, and write it
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let env = Environment::of_this_process()?;
    let client = cloud_args::client()?;
    let mut person = Person::new(args.yes);
    let from = match &args.from {
        Some(from) => from.clone(),
        None => {
            person.line("Address of your dashboard or of Keystone, or a file", "", "ADDRESS|FILE").await?
        }
    };
    // What cannot be written is said before anybody is asked anything more.
    write::possible(&env)?;
    let mut known = source::read(&from, args.entry.as_deref())?;
    known.take_options(&args, &env)?;
    let file = known.is_from_file;
    let found = discover(&env, &client, &known, &args).await?;
    choose(&mut known, &found, &mut person).await?;
    name_missing(&mut known, &mut person).await?;
    agree(&known, &found, &mut person).await?;

    let name = entry_name(&env, &known, args.name.as_deref(), &mut person).await?;
    let cloud = cloud(&env, &name, &known.entry())?;
    try_it(&client, &cloud).await?;
    if args.no_sign_in {
        if known.has_no_project() {
            let project = person.line("Project (none: choose one later)", "", "--project-name").await;
            known.project(project.unwrap_or_default());
        }
    } else {
        let reached = sign_in(&client, &cloud).await?;
        project(&mut known, &reached, &mut person).await?;
    }
    let entry = known.entry();
    let mut draft = write::Draft::make(&env, &name, &entry)?;
    outln!("This goes into {}:\n\n{}\n", draft.path().display(), draft.lines());
    if !person.agrees("Write it?").await? {
        return Err(refused("nothing is written"));
    }
    draft.write()?;
    outln!("{}: written to {}", printable(&name), draft.path().display());
    if file && known.left_out {
        outln!("Note: passwords and secrets of {} are not taken over; ksb needs none", printable(&from));
    }
    pythons::tell(&env);
    // Not `token issue`: that leaves a bearer token in the terminal's history.
    let next = if args.no_sign_in { "ksb login" } else { "openstack catalog list --os-cloud" };
    outln!("Next: {next} {}", quoted(&name));
    Ok(())
}

fn refused(why: &str) -> Error {
    Error::new(Code::InvalidRequest, why).remedy("ksb setup, with the address that your operator gave you")
}

/// An entry as it will be resolved, before it is in any file: with this environment's proxies.
fn cloud(env: &Environment, name: &str, entry: &Value) -> Result<Cloud> {
    let mut env = env.clone();
    let file = PathBuf::from("/ksb-setup.yaml");
    env.vars.insert(crate::clouds::CLOUDS_VARIABLE.into(), file.display().to_string());
    // JSON is YAML.
    env.drafts.insert(file, json!({"clouds": {name: entry}}).to_string());
    let mut cloud = Config::load(&env)?.resolve(Some(name), &Overrides::default())?.cloud;
    cloud.source = None;
    Ok(cloud)
}

/// What the address tells, whether it is a dashboard's or Keystone's.
async fn discover(env: &Environment, client: &Client, known: &Known, args: &Args) -> Result<DiscoverReply> {
    let mut entry =
        json!({"auth_type": OURS, "auth": {"auth_url": known.address.as_str(), "protocol": "openid"}});
    if let Some(ca) = &known.cacert {
        entry["cacert"] = ca.display().to_string().into();
    }
    let cloud = cloud(env, "setup", &entry)?;
    client
        .post("/v1/discover", &DiscoverRequest { cloud, plain_http: args.plain_http })
        .await?
        .json()
        .map_err(|error: Error| Error { cloud: None, ..error })
}

/// One of the ways that were found. What a file or an option says stays.
async fn choose(known: &mut Known, found: &DiscoverReply, person: &mut Person) -> Result<()> {
    // Those that name what is wanted, else those that leave it open.
    let named = |choice: &&Choice| {
        let is_it = |said: &Option<String>, named: &Option<String>| said.is_none() || said == named;
        is_it(&known.identity_provider, &choice.identity_provider) && is_it(&known.protocol, &choice.protocol)
    };
    let open = |choice: &&Choice| {
        let fits = |said: &Option<String>, named: &Option<String>| {
            named.is_none() || said.is_none() || said == named
        };
        fits(&known.identity_provider, &choice.identity_provider) && fits(&known.protocol, &choice.protocol)
    };
    let mut fitting: Vec<_> = found.choices.iter().filter(named).collect();
    if fitting.is_empty() {
        fitting = found.choices.iter().filter(open).collect();
    }
    let choice = match fitting.as_slice() {
        [] => {
            return Err(refused("none of the ways to sign in that the address offers is the one you named"));
        }
        [only] => only,
        several => {
            outln!("Ways to sign in there:");
            let lines = several.iter().map(|choice| format!("{}: {}", choice.label, way(choice)));
            several[person.number(lines, "--identity-provider or --protocol").await?]
        }
    };
    known.auth_url = Url::parse(&choice.auth_url)
        .map_err(|error| Error::new(Code::NotKeystone, format!("the address of Keystone: {error}")))?;
    known.identity_provider = known.identity_provider.take().or_else(|| choice.identity_provider.clone());
    known.protocol = known.protocol.take().or_else(|| choice.protocol.clone());
    known.region = known.region.take().or_else(|| choice.region.clone());
    known.label.clone_from(&choice.label);
    known.found_sso = choice.protocol.is_some();
    Ok(())
}

fn way(choice: &Choice) -> String {
    let idp =
        choice.identity_provider.as_ref().map_or(String::new(), |idp| format!("identity provider {idp}, "));
    let protocol = choice.protocol.as_deref().unwrap_or("(not named)");
    format!("{idp}protocol {protocol}, Keystone at {}", choice.auth_url)
}

/// Keystone tells nobody who is not signed in.
async fn name_missing(known: &mut Known, person: &mut Person) -> Result<()> {
    if known.protocol.is_none() {
        outln!("Keystone does not say how people sign in; your operator, or the dashboard's address, does.");
        let protocol = person.line("Federation protocol", "openid", "--protocol").await?;
        known.protocol = Some(protocol);
        if known.identity_provider.is_none() {
            let question = "Identity provider, by Keystone's name for it (none: by the protocol alone)";
            let named = person.line_or_nothing(question).await;
            known.identity_provider = Some(named).filter(|named| !named.is_empty());
        }
    }
    Ok(())
}

/// The user sees whom they are about to trust with a sign-in.
async fn agree(known: &Known, found: &DiscoverReply, person: &mut Person) -> Result<()> {
    let host = |url: &Url| url.host_str().unwrap_or_default().to_owned();
    outln!("Keystone           {}", printable(known.auth_url.as_str()));
    outln!(
        "identity provider  {}",
        printable(known.identity_provider.as_deref().unwrap_or("(found by protocol)"))
    );
    outln!("protocol           {}", printable(known.protocol.as_deref().unwrap_or_default()));
    for address in &found.redirects {
        outln!("another host       {}", printable(address));
    }
    if host(&known.auth_url) != host(&known.address) {
        outln!(
            "Note: you gave {}, and it names a Keystone on another host.",
            printable(&host(&known.address))
        );
    }
    if known.auth_url.scheme() == "http" {
        outln!("Note: whoever is on the way to an address with http reads your tokens.");
    }
    if person.agrees("Trust this Keystone, and sign in there?").await? {
        return Ok(());
    }
    Err(refused("not trusted; nothing is written"))
}

async fn entry_name(
    env: &Environment,
    known: &Known,
    wanted: Option<&str>,
    person: &mut Person,
) -> Result<String> {
    let config = Config::load(env)?;
    let is_new = |name: &str| {
        !config.entries().contains_key(name) && name != env.get("OS_CLOUD_NAME").unwrap_or("envvars")
    };
    let taken = |name: &str| {
        Error::new(Code::InvalidRequest, "there is an entry of this name, and it is not written over")
            .cloud(name)
            .remedy("--name with another")
    };
    if let Some(name) = wanted {
        return if is_new(name) { Ok(name.to_owned()) } else { Err(taken(name)) };
    }
    let plain = known.proposed_name();
    let mut numbered = (2..).map(|number| format!("{plain}-{number}"));
    let proposed =
        if is_new(&plain) { plain } else { numbered.find(|name| is_new(name)).unwrap_or_default() };
    loop {
        let name =
            person.line("Name of the entry", &proposed, "--name").await.unwrap_or_else(|_| proposed.clone());
        if is_new(&name) {
            return Ok(name);
        }
        errln!("ksb: {}", taken(&name));
    }
}

/// What needs no sign-in: the same questions that `ksb doctor` asks.
async fn try_it(client: &Client, cloud: &Cloud) -> Result<()> {
    let reply: ProbeReply = client.post("/v1/probe", &CloudRequest { cloud: cloud.clone() }).await?.json()?;
    for finding in reply.findings {
        match finding.finding {
            Found::Fail => {
                let why = format!("{}: {}", finding.check, printable(&finding.detail));
                let mut error = Error::new(Code::KeystoneError, why).cloud(cloud.label());
                error.remedy = finding.remedy;
                error.request_id = finding.request_id;
                return Err(error);
            }
            Found::Warn => outln!("Note: {}: {}", finding.check, printable(&finding.detail)),
            Found::Ok | Found::Unknown | Found::Skipped => {}
        }
    }
    Ok(())
}

async fn sign_in(client: &Client, cloud: &Cloud) -> Result<Vec<Reach>> {
    if !interactive::may_prompt() {
        let why = "to try it somebody has to sign in, and this caller may not prompt";
        return Err(Error::new(Code::SignInNeeded, why).cloud(cloud.label()).remedy("--no-sign-in"));
    }
    let mut request = login::request(cloud.clone());
    let session = login::sign_in_or_say_why(client, &mut request).await?;
    outln!("{}: signed in as {}", cloud.label(), printable(&super::say::user(&session.user)));
    Ok(projects::reach(client, cloud).await?.projects)
}

/// The project that the entry is for, out of those that there are.
async fn project(known: &mut Known, reached: &[Reach], person: &mut Person) -> Result<()> {
    if !known.has_no_project() {
        let named = reached.iter().any(|project| known.is_project(project));
        if !named {
            outln!("Note: the project that is named is none of those that you have a role in");
        }
        return Ok(());
    }
    let project = match reached {
        [] => {
            outln!("You have no role on any project there; the entry names none.");
            return Ok(());
        }
        [only] => only,
        several => {
            outln!("Your projects:");
            let lines = several.iter().map(|project| project.name.clone());
            &several[person.number(lines, "--project-name").await?]
        }
    };
    known.reached(project);
    Ok(())
}

/// The parts of an entry, without what is nothing.
fn mapping(parts: Vec<(&str, Option<String>)>) -> Map<String, Value> {
    let there = parts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into())));
    there.collect()
}
