//! Promise 2: fifty programs at once, none of them signed in, and one of them dies.

use rustix::process::Signal;

use super::browsers::ancestors;
use super::front::{Counts, Front};
use super::program::Program;
use super::wait;

const PROJECTS: [&str; 2] = ["demo", "staging"];

#[test]
fn fifty_cold_programs_cost_one_sign_in_even_when_the_one_that_opened_the_browser_dies() {
    let front = Front::free().in_chromium();
    front.clouds(&PROJECTS.map(|project| front.entry(project, project)));
    let openstack = |number: usize| {
        let cloud = ["--os-cloud", PROJECTS[number % 2]];
        Program::start(
            front.openstack(&[&cloud[..], &["token", "issue", "-f", "value", "-c", "id"]].concat()),
        )
    };
    // `ksb` is so much faster that it would always be the first.
    let mut crowd: Vec<_> = (0..8).map(openstack).collect();
    wait::until("a sign-in", || crowd.iter().any(|program| program.has_said("sign in: ")).then_some(()));
    crowd.extend((8..50).map(|number| front.start(&["token", PROJECTS[number % 2]])));

    let opener = ancestors(front.browsers.opened_after(0));
    let first = crowd.iter().position(|program| opener.contains(&program.pid()));
    let first = first.expect("one of the fifty opened the browser");
    crowd[first].signal(Signal::KILL);

    let mut tokens = [None, None];
    for (number, program) in crowd.into_iter().enumerate() {
        let outcome = program.ends();
        if number == first {
            assert_eq!(outcome.code, Some(-9));
            continue;
        }
        let token = outcome.ok().stdout.trim().to_owned();
        let (known, project) = (&mut tokens[number % 2], PROJECTS[number % 2]);
        assert_eq!(*known.get_or_insert_with(|| token.clone()), token, "everybody in {project} has the same");
    }
    for (token, project) in tokens.iter().zip(PROJECTS) {
        assert_eq!(front.keystone.look_at(token.as_ref().unwrap()).unwrap()["project"]["name"], project);
    }
    assert_eq!(front.counts(), Counts { browsers: 1, logins: 1, exchanges: 2 }, "{:?}", front.all_requests());
}
