//! Checks with granted messages: modes, window, pieces, tags.

use std::time::Instant;

use super::driver::{GRANTS, Grant, Message, exchange};
use super::{DEADLINE, Pair};
use crate::link::{Sink, Source, WINDOW};

pub(super) fn window(make: &dyn Fn() -> Pair) {
    let mut pair = make();
    let len = pair.links[0].limits().eager + 1;
    let [a, b] = &mut pair.links;
    let mut opened = 0;
    while a.open_send(Message::plain(opened, len).tag, len as u64, None).unwrap().is_some() {
        a.flush().unwrap();
        opened += 1;
        assert!(opened <= WINDOW as u32, "the sender's window never fills");
    }
    assert_eq!(opened, WINDOW as u32);
    let mut granted = 0;
    while b.open_recv(Message::plain(granted, len).tag, len as u64, false, None).unwrap().is_some() {
        b.flush().unwrap();
        granted += 1;
        assert!(granted <= WINDOW as u32, "the receiver's window never fills");
    }
    assert_eq!(granted, WINDOW as u32);

    // And many more messages than the window holds pass through a fresh link.
    let messages: Vec<Message> = (0..5 * WINDOW as u32).map(|i| Message::plain(i, len)).collect();
    exchange(&mut make(), &messages, &messages);
}

pub(super) fn modes(make: &dyn Fn() -> Pair) {
    let mut pair = make();
    let eager = pair.links[0].limits().eager;
    let mut messages = Vec::new();
    for source in GRANTS {
        for target in GRANTS {
            for len in [1, eager, eager + 1, 10_007.max(eager + 2), 65_536, 1 << 20] {
                let number = messages.len() as u32;
                messages.push(Message {
                    source,
                    target,
                    pieces: [32 << 10; 2],
                    ..Message::plain(number, len)
                });
            }
        }
    }
    for message in &messages {
        exchange(&mut pair, &[*message], &[]);
    }
    exchange(&mut make(), &messages, &messages);
}

pub(super) fn pieces(make: &dyn Fn() -> Pair) {
    let mut pair = make();
    let mut messages = Vec::new();
    for (i, pieces) in
        [[777, 7_777], [7_777, 777], [1 << 20, 13], [8192, 8191], [1, 5]].into_iter().enumerate()
    {
        let len = if pieces[0] == 1 { 9_001 } else { 50_021 };
        for (j, source) in GRANTS.into_iter().enumerate() {
            let target = GRANTS[(i + j) % 3];
            messages.push(Message { source, target, pieces, ..Message::plain((10 * i + j) as u32, len) });
        }
    }
    exchange(&mut pair, &messages, &[]);
    exchange(&mut pair, &[], &messages);
}

/// Two ends in different calls see each other's tags, and not a byte of either's memory is touched.
pub(super) fn tag_first(make: &dyn Fn() -> Pair) {
    for (source, target) in
        [(Grant::None, Grant::Plain), (Grant::Plain, Grant::None), (Grant::None, Grant::None)]
    {
        let mut pair = make();
        let len = pair.links[0].limits().eager as u64 + 1000;
        let [a, b] = &mut pair.links;
        let (ours, theirs) = (Message::plain(1, 0).tag, Message::plain(2, 0).tag);
        let bytes = vec![1u8; len as usize];
        let space = vec![2u8; len as usize];
        let place = |grant, bytes: &Vec<u8>| {
            (grant == Grant::Plain).then(|| crate::link::Place::at_address(bytes.as_ptr()))
        };
        let sent = a.open_send(ours, len, place(source, &bytes)).unwrap().unwrap();
        let m = b.open_recv(theirs, len, false, place(target, &space)).unwrap().unwrap();
        let start = Instant::now();
        loop {
            for link in [&mut *a, &mut *b] {
                link.flush().unwrap();
                link.poll().unwrap();
            }
            let sink = a.sink(sent).unwrap();
            assert!(
                matches!(sink, Sink::Waiting | Sink::Foreign(_) | Sink::Pulled | Sink::Copy | Sink::Posted),
                "the sender would move bytes into another call: {sink:?}"
            );
            if let Sink::Foreign(tag) = sink {
                assert_eq!(tag, theirs);
            }
            if let Some(head) = b.incoming(m).unwrap() {
                assert_eq!(head.tag, ours);
                if head.source == Source::Landing {
                    assert_eq!(b.landed(m), 0);
                }
                break;
            }
            assert!(start.elapsed() < DEADLINE, "the head of the message never arrives");
        }
        assert!(space.iter().all(|&byte| byte == 2), "memory was written before the tags were compared");
    }
}
