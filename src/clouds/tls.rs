//! How Keystone's certificate is checked and which one of our own we show, as the SDK and requests have it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Environment;
use super::entry::Dict;
use crate::model::{Tls, TlsSources};

/// `get_requests_verify_args`, and what requests itself adds to it.
///
/// `place` is where the entry is written.
pub(super) fn of(
    env: &Environment,
    config: &Dict,
    place: &str,
    warnings: &mut Vec<String>,
) -> Result<Tls, String> {
    // A variable wins over an entry of a file (see the module above).
    let source = |key: &str, variable: &str| match env.get(variable) {
        Some(_) => variable.to_owned(),
        None => format!("`{key}` in {place}"),
    };
    let mut sources = TlsSources::default();
    let absolute = |path: &Path| env.current_dir.join(path).components().collect::<PathBuf>();
    let path = |key: &str| match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(path)) if path.is_empty() => Ok(None),
        Some(Value::String(path)) => Ok(Some(absolute(&expand_home(path, &env.home)))),
        Some(_) => Err(format!("`{key}` is not a path")),
    };
    let insecure = match config.get("insecure") {
        Some(Value::Bool(insecure)) => *insecure,
        Some(Value::String(insecure)) => insecure.eq_ignore_ascii_case("true"),
        _ => false,
    };
    // Python takes any text for true and requests then takes it for a CA bundle; `true` and `false` in
    // quotes, or in OS_VERIFY, are no files.
    let (checked, mut ca_file) = match config.get("verify") {
        Some(Value::Bool(verify)) => (*verify, None),
        Some(Value::String(verify)) if verify.eq_ignore_ascii_case("true") => (true, None),
        Some(Value::String(verify)) if verify.eq_ignore_ascii_case("false") => (false, None),
        Some(Value::String(bundle)) if !bundle.is_empty() => (true, Some(absolute(Path::new(bundle)))),
        _ => (true, None),
    };
    let verify = checked && !insecure;
    let cacert = path("cacert")?;
    // An empty `verify:` verifies, but makes the SDK overlook `cacert`.
    if verify && config.get("verify") != Some(&Value::Null) {
        let key = if cacert.is_some() { "cacert" } else { "verify" };
        ca_file = cacert.or(ca_file);
        sources.ca_file = ca_file
            .is_some()
            .then(|| if key == "cacert" { source(key, "OS_CACERT") } else { format!("`{key}` in {place}") });
    } else if cacert.is_some() {
        warnings.push("`cacert` is not used, because `verify` or `insecure` beside it says so".into());
    }
    let bundle =
        ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"].into_iter().find_map(|name| Some((name, env.get(name)?)));
    if let (true, None, Some((variable, path))) = (verify, &ca_file, bundle) {
        ca_file = Some(absolute(Path::new(path)));
        sources.ca_file = Some(variable.to_owned());
    }
    let ca_file = ca_file.filter(|_| verify);
    let cert_file = path("cert")?;
    let key_file = path("key")?.filter(|_| cert_file.is_some());
    sources.cert_file = cert_file.is_some().then(|| source("cert", "OS_CERT"));
    sources.key_file = key_file.is_some().then(|| source("key", "OS_KEY"));
    Ok(Tls { verify, ca_file, cert_file, key_file, sources })
}

/// A path whose leading `~` stands for the home directory, as `os.path.expanduser` has it.
fn expand_home(path: &str, home: &Path) -> PathBuf {
    match path.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(rest) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => path.into(),
    }
}
