//! Another user of the same machine, for tests that run as root.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::spawn;

/// `nobody`
const UID: u32 = 65534;

const PROGRAM: &str = r"
use IO::Socket::IP; use IO::Socket::UNIX;
$SIG{PIPE} = 'IGNORE'; $SIG{ALRM} = sub { print 'hung'; exit }; alarm 120;
my $there = shift; local $/; my $request = <STDIN>;
my $socket = $there =~ m{^/} ? IO::Socket::UNIX->new(Peer => $there) : IO::Socket::IP->new($there);
print('no connection'), exit unless $socket;
print $socket $request; $socket->flush; print <$socket>;
";

/// What a program of another user gets who sends `request` to an address or socket. Only root can be another user.
pub fn asks(there: &str, request: &[u8]) -> String {
    run(UID, there, request)
}

/// The same program as the user of the tests: it would work.
pub fn we_ask(there: &str, request: &[u8]) -> String {
    run(rustix::process::geteuid().as_raw(), there, request)
}

fn run(uid: u32, there: &str, request: &[u8]) -> String {
    let mut perl = Command::new("perl");
    perl.args(["-e", PROGRAM, there]).uid(uid).current_dir("/").stdin(Stdio::piped());
    let mut perl = spawn::start(&mut perl);
    perl.stdin.take().unwrap().write_all(request).unwrap();
    let mut said = String::new();
    perl.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    perl.wait().unwrap();
    said
}
