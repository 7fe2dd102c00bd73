//! Checks of arming, watching and waking.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::driver::{Message, Random};
use super::{DEADLINE, Pair};
use crate::link::{Link, Tag};

const ROUNDS: u32 = 10_000;

/// Sleeps on what the link says, at most `limit`; `true` if something became ready.
fn sleep(link: &dyn Link, limit: Duration) -> bool {
    let mut watched = Vec::new();
    link.watch(&mut |descriptor, writable| {
        let events = libc::POLLIN | if writable { libc::POLLOUT } else { 0 };
        watched.push(libc::pollfd { fd: descriptor.as_raw_fd(), events, revents: 0 });
    });
    // SAFETY: the vector holds as many entries as are told.
    unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, limit.as_millis() as i32) > 0 }
}

/// Receives one eager message, asleep until it is there.
fn receive_asleep(link: &mut dyn Link, tag: Tag, round: u32) {
    let start = Instant::now();
    let m = link.open_recv(tag, 8, true, None).unwrap().expect("room to receive");
    loop {
        link.poll().unwrap();
        if let Some(head) = link.incoming(m).unwrap() {
            assert_eq!(head.tag, tag);
            link.release(m, 8).unwrap();
            link.close_recv(m);
            return;
        }
        link.flush().unwrap();
        if link.arm() {
            let woken = sleep(link, DEADLINE);
            link.disarm();
            assert!(woken, "round {round}: nobody woke this end within {DEADLINE:?}");
        }
        assert!(start.elapsed() < DEADLINE, "round {round}: awake, but the message never came");
    }
}

/// Two threads send by turns and sleep in between; a lost wake-up would show as a wait of the whole deadline.
pub(super) fn ping_pong(make: &dyn Fn() -> Pair) {
    let mut pair = make();
    let done = AtomicUsize::new(0);
    let done = &done;
    std::thread::scope(|scope| {
        for (end, link) in pair.links.iter_mut().enumerate() {
            scope.spawn(move || {
                let mut random = Random(end as u64);
                for round in 0..ROUNDS {
                    let tag = Message::plain(round, 8).tag;
                    if end == 1 {
                        receive_asleep(link.as_mut(), tag, round);
                    }
                    for _ in 0..random.below(200) {
                        std::hint::spin_loop();
                    }
                    let bytes = [0u8; 8];
                    // SAFETY: the bytes are readable.
                    while !unsafe { link.send_eager(tag, bytes.as_ptr(), 8) }.unwrap() {
                        link.poll().unwrap();
                    }
                    link.flush().unwrap();
                    if end == 0 {
                        receive_asleep(link.as_mut(), tag, round);
                    }
                }
                // A link that repairs itself needs both ends.
                done.fetch_add(1, Ordering::Relaxed);
                let start = Instant::now();
                while done.load(Ordering::Relaxed) < 2 && start.elapsed() < DEADLINE {
                    if link.poll().and_then(|()| link.flush()).is_err() {
                        return;
                    }
                    std::thread::yield_now();
                }
            });
        }
    });
}

/// An end that has unread news does not fall asleep on it: either it is told so, or its descriptors are ready.
pub(super) fn arm_sees(make: &dyn Fn() -> Pair) {
    let mut pair = make();
    let [a, b] = &mut pair.links;
    for round in 0..50 {
        let tag = Message::plain(round, 8).tag;
        if round % 2 == 0 {
            // SAFETY: the bytes are readable.
            assert!(unsafe { a.send_eager(tag, [0u8; 8].as_ptr(), 8) }.unwrap());
            a.flush().unwrap();
        }
        if b.arm() {
            if round % 2 == 1 {
                // SAFETY: the bytes are readable.
                assert!(unsafe { a.send_eager(tag, [0u8; 8].as_ptr(), 8) }.unwrap());
                a.flush().unwrap();
            }
            assert!(sleep(b.as_ref(), DEADLINE), "round {round}: asleep on news");
            b.disarm();
        } else if round % 2 == 1 {
            // Something older was news (a credit); that is allowed.
            // SAFETY: the bytes are readable.
            assert!(unsafe { a.send_eager(tag, [0u8; 8].as_ptr(), 8) }.unwrap());
            a.flush().unwrap();
        }
        receive_asleep(b.as_mut(), tag, round);
        a.poll().unwrap();
    }
}
