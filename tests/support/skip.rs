//! What a test cannot show on this machine is counted and listed, not passed over.

use std::fs::OpenOptions;
use std::io::Write;

/// Ends a test that needs something that this machine does not have: `skip!("root, to be another user")`. Where `CI=true`
/// it fails.
macro_rules! skip {
    ($needs:expr) => {{
        fn here() {}
        $crate::support::skip::leave_out(std::any::type_name_of_val(&here), $needs);
        return;
    }};
}
pub(crate) use skip;

/// Notes a test that is left out where `tests/run` looks, else on standard error, which is not captured there.
#[track_caller]
pub fn leave_out(place: &str, needs: &str) {
    // `it::lifecycle::a_test::here`; of a thread's name nothing is left with one test at a time.
    let test = place.trim_end_matches("::here").trim_end_matches("::{{closure}}");
    let test = test.split_once("::").map_or(test, |(_binary, test)| test);
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{test} needs {needs}");
    let line = format!("{test} needs {needs}\n");
    match std::env::var_os("KSB_SKIPPED") {
        Some(file) => {
            let file = OpenOptions::new().create(true).append(true).open(file);
            file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
        }
        None => std::io::stderr().write_all(format!("left out: {line}").as_bytes()).unwrap(),
    }
}

/// Whether a test may be another user, and read the memory of a process that lets nobody.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether there is an IPv6 loopback address.
pub fn has_ipv6() -> bool {
    std::net::TcpListener::bind("[::1]:0").is_ok()
}
