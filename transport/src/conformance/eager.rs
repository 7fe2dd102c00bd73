//! Checks with eager messages.

use std::time::Instant;

use super::driver::{Message, exchange};
use super::{DEADLINE, Pair};
use crate::Link;

pub(super) fn limits_agree(make: &dyn Fn() -> Pair) {
    let pair = make();
    let [here, there] = pair.links.each_ref().map(|link| (link.kind(), link.limits()));
    assert_eq!(here, there);
    assert!(here.1.slot >= 1);
}

pub(super) fn every_size(make: &dyn Fn() -> Pair) {
    let mut pair = make();
    let most = pair.links[0].limits().eager;
    let sizes: Vec<usize> =
        (0..=most).filter(|&len| len <= 200 || len % 61 == 0 || len % 1024 <= 1 || len + 2 > most).collect();
    let messages: Vec<Message> = (0..).zip(&sizes).map(|(i, &len)| Message::plain(i, len)).collect();
    exchange(&mut pair, &messages, &messages);
}

pub(super) fn order(make: &dyn Fn() -> Pair) {
    let mut pair = make();
    let eager = pair.links[0].limits().eager;
    let messages: Vec<Message> =
        (0..1000).map(|i| Message::plain(i, [0, 8, 41, 300, eager, eager + 1][i as usize % 6])).collect();
    exchange(&mut pair, &messages, &[]);
}

/// Sends without a receiver until the link refuses, then receives all of it, several times.
pub(super) fn fills_and_recovers(make: &dyn Fn() -> Pair) {
    let mut pair = make();
    let eager = pair.links[0].limits().eager;
    let mut number = 0u32;
    for len in [1, 40, 500.min(eager), eager, 8, 8] {
        let bytes = vec![number as u8; len];
        let [a, b] = &mut pair.links;
        let sent = |link: &mut dyn Link, number| {
            let tag = Message::plain(number, 0).tag;
            // SAFETY: `bytes` is readable.
            unsafe { link.send_eager(tag, bytes.as_ptr(), len) }.unwrap()
        };
        let first = number;
        let start = Instant::now();
        // Credit may come back late, but it comes while both ends poll.
        while !sent(&mut **a, number) {
            a.poll().unwrap();
            b.poll().unwrap();
            b.flush().unwrap();
            assert!(start.elapsed() < DEADLINE, "an idle link takes no message of {len} bytes");
        }
        number += 1;
        while sent(&mut **a, number) {
            number += 1;
            assert!(number - first < 1_000_000, "the link never refuses");
        }
        for expected in first..number {
            let tag = Message::plain(expected, 0).tag;
            let m = b.open_recv(tag, len as u64, true, None).unwrap().expect("room to receive");
            let head = loop {
                a.flush().unwrap();
                a.poll().unwrap();
                b.poll().unwrap();
                if let Some(head) = b.incoming(m).unwrap() {
                    break head;
                }
                assert!(start.elapsed() < DEADLINE, "message {expected} does not arrive");
            };
            assert_eq!((head.tag, head.len), (tag, Some(len as u64)));
            b.release(m, len as u64).unwrap();
            b.close_recv(m);
            b.flush().unwrap();
        }
    }
}
