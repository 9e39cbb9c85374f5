//! Answers that are not there at once.

use crate::instance::{connect, directory, error, hear};
use loaded_control::{ANSWER_DEADLINE, Answer, Control, Reply, Request};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// Two clients have asked, and both answers are still to be found: by number 1 and 2.
fn waiting() -> (Control, UnixStream, UnixStream, Instant) {
    let directory = directory();
    let mut control = Control::bind(&directory.join("control.sock")).unwrap();
    let mut clients = [1, 2].map(|_| connect(control.path()));
    // Who is connected needs no name any more.
    std::fs::remove_dir_all(directory).unwrap();
    let now = Instant::now();
    let mut number = 0;
    for client in &mut clients {
        client.write_all(b"\"status\"\n").unwrap();
        control.serve(now, |request| {
            assert_eq!(request, Request::Status);
            number += 1;
            Answer::Later(number)
        });
    }
    let [first, second] = clients;
    (control, first, second, now)
}

fn nobody(_: Request) -> Answer {
    panic!("everything was asked before")
}

fn is_silent(client: &mut UnixStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let silent = client.read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    silent
}

#[test]
fn each_answer_goes_to_who_waits_for_it() {
    let (mut control, mut first, mut second, now) = waiting();
    control.serve(now, nobody);
    assert!(is_silent(&mut first) && is_silent(&mut second));
    control.settle(now, 3, &Reply::error("three"));
    control.settle(now, 2, &Reply::error("two"));
    control.settle(now, 2, &Reply::error("two again"));
    control.serve(now, nobody);
    assert_eq!(error(&hear(&mut second)), "two");
    assert!(is_silent(&mut first));
    control.settle(now, 1, &Reply::error("one"));
    control.serve(now, nobody);
    assert_eq!(error(&hear(&mut first)), "one");
}

#[test]
fn an_answer_that_never_comes_is_an_error() {
    let (mut control, mut first, _second, now) = waiting();
    assert_eq!(control.next_deadline(), Some(now + ANSWER_DEADLINE));
    control.serve(now + ANSWER_DEADLINE / 2, nobody);
    assert!(is_silent(&mut first));
    control.serve(now + ANSWER_DEADLINE, nobody);
    assert_eq!(error(&hear(&mut first)), "no answer in time");
    control.settle(now, 1, &Reply::error("too late"));
}

/// The kernel says of a connection that has ended that it has, each time it is asked.
#[test]
fn who_goes_meanwhile_wakes_nobody() {
    let (mut control, first, second, now) = waiting();
    drop((first, second));
    let mut wanted = Vec::new();
    control.poll_fds(&mut wanted);
    assert_eq!(wanted.len(), 1, "the listener alone");
    drop(wanted);
    control.settle(now, 1, &Reply::error("one"));
    control.serve(now, nobody);
    control.serve(now + ANSWER_DEADLINE, nobody);
    assert_eq!(control.next_deadline(), None);
}
