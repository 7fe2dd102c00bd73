//! Checks with random messages, in one thread, in two, and cut off.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::driver::{GRANTS, Message, Random, Station, exchange};
use super::{DEADLINE, Pair};

/// `count` messages of all sizes and ways.
fn messages(random: &mut Random, count: u32, eager: usize, most: usize) -> Vec<Message> {
    (0..count)
        .map(|number| {
            let len = match random.below(4) {
                0 => random.below(41.min(eager + 1)),
                1 => random.below(eager + 1),
                2 => eager + 1 + random.below(3000),
                _ => 1 + random.below(most),
            };
            let mut pick = || GRANTS[random.below(3)];
            let (source, target) = (pick(), pick());
            let pieces = [(); 2].map(|()| 1 << (8 + random.below(9)));
            Message { source, target, pieces, ..Message::plain(number, len) }
        })
        .collect()
}

pub(super) fn programs(make: &dyn Fn() -> Pair) {
    for seed in 0..6 {
        let mut pair = make();
        let mut random = Random(seed);
        let eager = pair.links[0].limits().eager;
        let forth = messages(&mut random, 150, eager, 100_000);
        let back = messages(&mut random, 100, eager, 100_000);
        exchange(&mut pair, &forth, &back);
    }
}

pub(super) fn threads(make: &dyn Fn() -> Pair) {
    in_threads(make, false);
}

/// The check that both directions work at once in two threads, save that an end that is done goes on polling until the
/// other is done too: a link that repairs itself needs both.
///
/// # Panics
/// If the link fails or is stuck.
pub fn staying_threads(make: &dyn Fn() -> Pair) {
    in_threads(make, true);
}

fn in_threads(make: &dyn Fn() -> Pair, stay: bool) {
    for seed in 100..104 {
        let mut pair = make();
        let mut random = Random(seed);
        let eager = pair.links[0].limits().eager;
        let forth = messages(&mut random, 150, eager, 200_000);
        let back = messages(&mut random, 150, eager, 200_000);
        let stations = Station::both(&pair, &forth, &back);
        let service = &pair.service;
        let done = AtomicUsize::new(0);
        let done = &done;
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (mut station, link) in stations.into_iter().zip(&mut pair.links) {
                threads.push(scope.spawn(move || {
                    let start = Instant::now();
                    while !station.is_done() {
                        if !station.step(link.as_mut()).expect("a healthy link") {
                            service();
                            std::thread::yield_now();
                        }
                        assert!(start.elapsed() < DEADLINE, "stuck: {}", station.describe());
                    }
                    // What was sent last must get out even if this end has nothing more to do.
                    link.flush().expect("a healthy link");
                    drain(link.as_mut());
                    done.fetch_add(1, Ordering::Relaxed);
                    while stay && done.load(Ordering::Relaxed) < 2 && start.elapsed() < DEADLINE {
                        drain(link.as_mut());
                    }
                }));
            }
            // The thread sanitizer does not see that the scope waits for them, which is inside the standard library.
            threads.into_iter().for_each(|thread| thread.join().expect("a thread that goes well"));
        });
    }
}

/// Lets a byte stream get rid of what its socket did not take yet.
fn drain(link: &mut dyn crate::link::Link) {
    for _ in 0..200 {
        if link.poll().is_err() || link.flush().is_err() {
            return;
        }
        std::thread::yield_now();
    }
}

/// Drops one end in the middle of things. The other must not crash or hang; an error is allowed, wrong bytes are not.
pub(super) fn drops(make: &dyn Fn() -> Pair) {
    for seed in 200..240 {
        let mut pair = make();
        let mut random = Random(seed);
        let eager = pair.links[0].limits().eager;
        let forth = messages(&mut random, 60, eager, 50_000);
        let back = messages(&mut random, 60, eager, 50_000);
        let mut stations = Station::both(&pair, &forth, &back);
        for _ in 0..random.below(100) {
            for (station, link) in stations.iter_mut().zip(&mut pair.links) {
                station.step(link.as_mut()).expect("a healthy link");
            }
            (pair.service)();
        }
        let Pair { links: [first, second], .. } = pair;
        let (gone, mut left) = if seed % 2 == 0 { (first, second) } else { (second, first) };
        drop(gone);
        // The memory of the end that is gone stays: what it granted may still be read, as in a process that was not
        // ended yet.
        let station = &mut stations[usize::from(seed % 2 == 0)];
        for _ in 0..50 {
            if station.step(left.as_mut()).is_err() {
                break;
            }
        }
    }
}
