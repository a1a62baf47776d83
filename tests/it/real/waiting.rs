//! What a person is told who waits in vain.

use rustix::process::Signal;

use super::front::{Counts, Front, Turn};
use super::program::Program;

#[test]
fn a_person_who_waits_in_vain_is_told_what_keystones_page_means() {
    let mut front = Front::free();
    let _only_here = Turn::wait("port-9999");
    let nowhere = front.entry("nowhere", "demo").replace("lab-idp", "no-such-idp");
    let untrusted = front.entry("untrusted", "demo").replace(&front.callback_port().to_string(), "9999");
    front.clouds(&[nowhere, untrusted]);
    front.sandbox.set("KSB_BROWSER_TIMEOUT", "100");
    let login = |cloud: &str| {
        let mut command = front.sandbox.ksb(&["login", cloud]);
        command.env("KSB_BROWSER_PROFILE", front.sandbox.path(cloud));
        Program::start(command)
    };
    let [nowhere, untrusted] = ["nowhere", "untrusted"].map(login);
    // What Keystone's own page says, ours cannot see.
    front.answered("Keystone's refusal of the origin", |request| {
        request.path.contains("9999") && request.status == 401
    });
    front.answered("Keystone's word on the identity provider", |request| {
        request.path.contains("no-such-idp") && request.status == 404
    });
    let said = untrusted.says("untrusted: still waiting");
    assert!(said.contains("trusted_dashboard = http://localhost:9999/auth/websso/"), "{said}");
    let said = nowhere.says("nowhere: still waiting");
    assert!(said.contains("404") && said.contains("no-such-idp"), "{said}");
    for program in [nowhere, untrusted] {
        program.signal(Signal::INT);
        let outcome = program.ends();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(130), ""), "{outcome:?}");
        assert!(outcome.stderr.contains("the sign-in goes on"), "{outcome:?}");
    }
    assert_eq!(front.counts(), Counts { browsers: 2, logins: 0, exchanges: 0 });
}
