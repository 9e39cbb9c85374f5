//! Frames of every direction, through a real link: what decodes is written again as it came, and a worker takes any
//! sequence of messages or refuses it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loaded_ipc::{
    Decode, Encode, FromProber, FromWorker, Link, LinkError, MAX_FRAME, Membership, Silence, ToProber, ToWorker, decode,
};
use loaded_worker::decide::Prepared;
use loaded_worker::setup::Assembly;
use nix::unistd::{read, write};
use std::fmt::Debug;

type Ends<M> = (Link<M, Silence>, Link<Silence, M>);

thread_local! {
    static TO_WORKER: Ends<ToWorker> = Link::pair().expect("pair");
    static FROM_WORKER: Ends<FromWorker> = Link::pair().expect("pair");
    static TO_PROBER: Ends<ToProber> = Link::pair().expect("pair");
    static FROM_PROBER: Ends<FromProber> = Link::pair().expect("pair");
    static MEMBERSHIP: Ends<Membership> = Link::pair().expect("pair");
}

fn round<M: Decode<()> + Encode + Debug + PartialEq>((reader, writer): &Ends<M>, frame: &[u8]) {
    // An empty one is how a socket says that the peer is gone.
    if frame.is_empty() {
        assert!(decode::<M>(frame).is_err());
        return;
    }
    write(writer, frame).expect("there is room");
    match (reader.receive(), decode::<M>(frame)) {
        (Ok(message), Ok(decoded)) => {
            assert_eq!(message, decoded);
            writer.send(&message).expect("what was received can be sent");
            let mut again = [0; MAX_FRAME];
            let length = read(reader, &mut again).expect("it waits");
            assert_eq!(again[..length], *frame);
        }
        (Err(LinkError::TooLong), Err(_)) => assert!(frame.len() > MAX_FRAME),
        (Err(LinkError::Malformed(_)), Err(LinkError::Malformed(_))) => {}
        (one, two) => panic!("{one:?}, {two:?}"),
    }
}

/// Frames with a byte of length before each.
fn transaction(mut bytes: &[u8]) {
    let mut assembly = Assembly::default();
    while let Some((length, rest)) = bytes.split_first() {
        let (frame, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        bytes = rest;
        let Ok(message) = decode(frame) else { return };
        match assembly.take(message, 0) {
            Ok(Some(setup)) => drop(Prepared::new(setup)),
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, frame)) = bytes.split_first() else { return };
    match which % 6 {
        0 => TO_WORKER.with(|ends| round(ends, frame)),
        1 => FROM_WORKER.with(|ends| round(ends, frame)),
        2 => TO_PROBER.with(|ends| round(ends, frame)),
        3 => FROM_PROBER.with(|ends| round(ends, frame)),
        4 => MEMBERSHIP.with(|ends| round(ends, frame)),
        _ => transaction(frame),
    }
    assert!(decode::<Silence>(frame).is_err());
});
