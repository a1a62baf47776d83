//! How Keystone's certificate is checked and which one of our own we show, as the SDK and requests have it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Environment;
use super::merge::Dict;
use crate::model::Tls;

/// `get_requests_verify_args`, and what requests itself adds to it.
pub(super) fn of(env: &Environment, config: &Dict, warnings: &mut Vec<String>) -> Result<Tls, String> {
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
        ca_file = cacert.or(ca_file);
    } else if cacert.is_some() {
        warnings.push("`cacert` is not used, because `verify` or `insecure` beside it says so".into());
    }
    let bundle = || env.get("REQUESTS_CA_BUNDLE").or_else(|| env.get("CURL_CA_BUNDLE"));
    let ca_file =
        if verify { ca_file.or_else(|| bundle().map(|path| absolute(Path::new(path)))) } else { None };
    let cert_file = path("cert")?;
    let key_file = path("key")?.filter(|_| cert_file.is_some());
    Ok(Tls { verify, ca_file, cert_file, key_file })
}

/// A path whose leading `~` stands for the home folder, as `os.path.expanduser` has it.
fn expand_home(path: &str, home: &Path) -> PathBuf {
    match path.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(rest) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => path.into(),
    }
}
