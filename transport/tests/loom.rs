//! Model checks of the shared-memory ring and of its sleeping protocol, on the shipped code:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p rccl-transport --release --test loom
//! ```
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use rccl_transport::shm::model;
use rccl_transport::{Link, Sink, Source, Tag};

fn check(body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    let body = std::sync::Arc::new(body);
    // A whole end does not fit on the stack that loom gives to a thread unless asked.
    model.check(move || {
        let body = std::sync::Arc::clone(&body);
        spawn(move || body()).join().unwrap();
    });
}

fn spawn(body: impl FnOnce() + 'static) -> thread::JoinHandle<()> {
    struct Moved<F>(F);
    // SAFETY: loom runs all its threads by turns on one thread of the system, and its cells find every race.
    unsafe impl<F> Send for Moved<F> {}
    impl<F: FnOnce()> Moved<F> {
        fn run(self) {
            (self.0)();
        }
    }
    let moved = Moved(body);
    thread::Builder::new().stack_size(1 << 20).spawn(move || moved.run()).unwrap()
}

/// Lines arrive once, in order and whole, over several laps of the ring.
#[test]
fn lines_arrive_whole_over_laps() {
    check(|| {
        let (mut writer, mut reader) = model::ring(2);
        let sender = spawn(move || {
            for number in 0..4u64 {
                while !writer.publish([number + 10, number + 20], number + 30) {
                    thread::yield_now();
                }
            }
        });
        for number in 0..4u64 {
            let line = loop {
                if let Some(line) = reader.take() {
                    break line;
                }
                thread::yield_now();
            };
            assert_eq!(line, (number as u32 + 30, [number + 10, number + 20], number + 30));
        }
        sender.join().unwrap();
    });
}

/// A line that was published is seen by the sleeper before it sleeps, or the bell is rung.
#[test]
fn no_wake_up_is_lost() {
    check(|| {
        let (mut sleeper, mut waker) = model::sleeping();
        let bell = Arc::new(loom::sync::Notify::new());
        let ring = Arc::clone(&bell);
        let other = spawn(move || {
            for _ in 0..2 {
                if waker.send() {
                    ring.notify();
                }
            }
        });
        let mut taken = 0;
        while taken < 2 {
            if sleeper.take() {
                taken += 1;
            } else if sleeper.arm() {
                // A lost wake-up is a deadlock here, which loom reports.
                bell.wait();
                sleeper.disarm();
            }
        }
        other.join().unwrap();
    });
}

const TAG: Tag = Tag { sequence: 7, call: [8, 9] };

fn until<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(answer) = ready() {
            return answer;
        }
        thread::yield_now();
    }
}

/// Memory of the sender is read only between the grant and the release: loom's cell stands for it.
#[test]
fn pulled_memory_is_granted_and_given_back() {
    check(|| {
        let (mut a, mut b) = model::link();
        let memory = Arc::new(UnsafeCell::new(0u64));
        let peers = Arc::clone(&memory);
        let sender = spawn(move || {
            // SAFETY: loom checks that nobody else uses the cell now.
            memory.with_mut(|word| unsafe { *word = 5 });
            let place = rccl_transport::Place::at_address(64 as *const u8);
            let m = a.open_send(TAG, 1000, Some(place)).unwrap().unwrap();
            a.flush().unwrap();
            assert_eq!(a.sink(m).unwrap(), Sink::Pulled);
            until(|| (a.released(m) == 1000).then_some(()));
            // SAFETY: as above: released.
            memory.with_mut(|word| unsafe { *word = 6 });
            a.close_send(m);
        });
        let m = b.open_recv(TAG, 1000, false, None).unwrap().unwrap();
        let head = until(|| {
            b.poll().unwrap();
            b.incoming(m).unwrap()
        });
        assert_eq!((head.tag, head.source), (TAG, Source::Mapped(64 as *const u8)));
        // SAFETY: loom checks that nobody writes the cell now.
        assert_eq!(peers.with(|word| unsafe { *word }), 5);
        b.release(m, 1000).unwrap();
        b.flush().unwrap();
        sender.join().unwrap();
    });
}

/// Memory of the receiver is written only between its grant and the count that says so.
#[test]
fn landed_memory_is_granted_and_given_back() {
    check(|| {
        let (mut a, mut b) = model::link();
        let memory = Arc::new(UnsafeCell::new(0u64));
        let peers = Arc::clone(&memory);
        let sender = spawn(move || {
            let m = a.open_send(TAG, 1000, None).unwrap().unwrap();
            a.flush().unwrap();
            until(|| {
                a.poll().unwrap();
                (a.sink(m).unwrap() != Sink::Waiting).then_some(())
            });
            assert_eq!(a.sink(m).unwrap(), Sink::Mapped(64 as *mut u8));
            // SAFETY: loom checks that nobody else uses the cell now.
            peers.with_mut(|word| unsafe { *word = 5 });
            a.wrote(m, 1000).unwrap();
            a.flush().unwrap();
        });
        // SAFETY: as above: not granted yet.
        memory.with_mut(|word| unsafe { *word = 1 });
        let place = rccl_transport::Place::at_address(64 as *const u8);
        let m = b.open_recv(TAG, 1000, false, Some(place)).unwrap().unwrap();
        b.flush().unwrap();
        until(|| (b.landed(m) == 1000).then_some(()));
        // SAFETY: as above: landed.
        assert_eq!(memory.with(|word| unsafe { *word }), 5);
        sender.join().unwrap();
    });
}

/// A slot is filled, read and filled again, and never both at a time: a cell stands for each slot of the area.
#[test]
fn slots_change_hands() {
    check(|| {
        let (mut a, mut b) = model::link();
        let cells: Arc<Vec<UnsafeCell<u64>>> = Arc::new((0..4).map(|_| UnsafeCell::new(0)).collect());
        let theirs = Arc::clone(&cells);
        const CHUNKS: u64 = 3;
        let len = CHUNKS * 256;
        let sender = spawn(move || {
            let m = a.open_send(TAG, len, None).unwrap().unwrap();
            a.flush().unwrap();
            until(|| {
                a.poll().unwrap();
                (a.sink(m).unwrap() == Sink::Staged).then_some(())
            });
            let mut base = 0;
            for chunk in 0..CHUNKS {
                let slot = until(|| {
                    a.poll().unwrap();
                    a.reserve(m, 256).unwrap()
                });
                base = if chunk == 0 { slot.addr() } else { base };
                // SAFETY: loom checks that nobody else uses the cell of this slot now.
                cells[(slot.addr() - base) / 256].with_mut(|word| unsafe { *word = chunk });
                a.commit(m, 256).unwrap();
            }
        });
        let m = b.open_recv(TAG, len, false, None).unwrap().unwrap();
        b.flush().unwrap();
        let mut base = 0;
        for chunk in 0..CHUNKS {
            let (slot, held) = until(|| {
                b.poll().unwrap();
                b.peek(m).unwrap()
            });
            assert_eq!(held, 256);
            base = if chunk == 0 { slot.addr() } else { base };
            // SAFETY: loom checks that nobody writes the cell of this slot now.
            assert_eq!(theirs[(slot.addr() - base) / 256].with(|word| unsafe { *word }), chunk);
            b.release(m, 256 * (chunk + 1)).unwrap();
        }
        sender.join().unwrap();
    });
}
