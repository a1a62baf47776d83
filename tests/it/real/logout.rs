//! Promise 6: after `ksb logout` no token that was handed out is worth anything, or it says which still is.

use super::front::{Counts, Front};
use super::relay::Relay;

#[test]
fn logout_revokes_every_token_and_says_what_it_could_not_revoke() {
    let front = Front::free();
    let user = front.user();
    let mut tokens = vec![front.token(&[])];
    let scopes: [&[&str]; 3] = [&["--project", "staging"], &["--project", "production"], &["--unscoped"]];
    tokens.extend(scopes.map(|scope| front.token(scope)));
    let refreshed = front.ksb(&["refresh"]).ok().stdout;
    assert!(
        refreshed.starts_with(&format!("demo: renewed, with the groups of now: {user} (lab) ")),
        "{refreshed}"
    );
    tokens.push(front.token(&[]));
    tokens.push(front.token(&["--project", "staging"]));
    assert_eq!(front.counts(), Counts { browsers: 2, logins: 2, exchanges: 5 });
    for (number, token) in tokens.iter().enumerate() {
        assert!(!tokens[..number].contains(token), "all differ");
        assert!(front.keystone.accepts(token));
    }

    let said = front.ksb(&["logout"]).ok();
    assert_eq!(
        said.stdout,
        format!(
            "demo: {user} (lab) is signed out; 7 token(s) revoked\ndemo: your browser is still signed in at the \
             identity provider; sign out there, or close it\n"
        )
    );
    assert_eq!(said.stderr, "");
    for token in &tokens {
        assert!(!front.keystone.accepts(token), "{token} is still good");
    }
    assert!(front.ksb(&["status"]).ok().stdout.starts_with("Nobody is signed in."));
    assert_eq!(front.ksb(&["logout"]).ok().stdout, "demo: nobody was signed in\n");
    let refused = front.ksb_with(&[("KSB_PROMPT", "never")], &["token"]);
    assert_eq!(refused.code, Some(75), "{refused:?}");
    assert_eq!(refused.stdout, "");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");

    // Once more, over a network that is gone when it counts.
    front.browsers.ended();
    let relay = Relay::start();
    let away = |args: &[&str]| front.ksb_with(&[("https_proxy", &relay.url())], args);
    let tokens = [away(&["token"]), away(&["token", "--project", "staging"])]
        .map(|outcome| outcome.ok().stdout.trim().to_owned());
    relay.cut();
    let outcome = away(&["logout"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let said = outcome.stdout;
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], format!("demo: {user} (lab) is signed out; 0 token(s) revoked"), "{said}");
    for (scope, line) in ["project staging", "project demo", "unscoped"].iter().zip(&lines[1..]) {
        let (start, rest) = line.split_once(" token, lives until ").unwrap();
        assert_eq!(start, format!("demo: NOT revoked: {scope}"), "{said}");
        let (until, why) = rest.split_once(") (").unwrap();
        assert!(until.ends_with(" min"), "when it ends: {line}");
        assert!(why.contains("cannot be reached: the proxy 127.0.0.1:"), "{line}");
    }
    assert!(lines[4].contains("your browser is still signed in"), "{said}");
    assert_eq!(lines.len(), 5, "{said}");
    assert!(tokens.iter().all(|token| front.keystone.accepts(token)), "it told the truth");
    let status = front.ksb(&["status"]).ok().stdout;
    assert!(status.starts_with(&format!("demo: {user} (lab) is signed out, but not everything")), "{status}");

    relay.restore();
    front.ksb(&["logout", "--all"]).ok();
    assert!(!tokens.iter().any(|token| front.keystone.accepts(token)));
}
