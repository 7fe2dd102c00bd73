//! One-sided calls: what is put into windows, when it is there, and who waits for whom.

mod common;

use common::{config, on_ranks, transports};
use rccl::{
    Call, Collective, Communicator, DataType, Error, Failure, RawGroup, RawSizes, ReduceOp, Result, Signals,
    Stream, Window,
};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// More than links send unasked.
const LARGE: usize = 300_000;
const LATE: Duration = Duration::from_millis(150);

/// Memory that a test has as a window.
struct Own {
    memory: Vec<u64>,
    window: Window,
}

impl Own {
    fn new(comm: &Communicator, words: usize) -> Own {
        let mut memory = vec![0; words];
        // SAFETY: the memory does not move, and goes after the window.
        let window = unsafe { comm.register_window(memory.as_mut_ptr().cast(), 8 * words) };
        Own { memory, window: window.unwrap() }
    }

    /// What is there now, which others may have written.
    fn read(&self) -> Vec<u64> {
        let first = self.window.memory().cast_const().cast::<u64>();
        // SAFETY: the words are there, and nobody writes to them while no signal is waited for.
        (0..self.memory.len()).map(|i| unsafe { first.wrapping_add(i).read() }).collect()
    }
}

fn put(on: &Communicator, x: &[u64], peer: u32, to: &Own, word: usize) -> Result<()> {
    let call = on.put_signal(x.as_ptr().cast(), 8 * x.len(), peer, &to.window, 8 * word as u64)?;
    // SAFETY: tests on streams keep the words until the stream has ended.
    unsafe { call.run() }
}

fn signal(on: &Communicator, peer: u32) -> Result<()> {
    // SAFETY: nothing is put.
    unsafe { on.signal(peer)?.run() }
}

fn wait(on: &Communicator, awaited: &[(u32, u64)]) -> Result<()> {
    let awaited: Vec<Signals> = awaited.iter().map(|&(from, count)| Signals { from, count }).collect();
    // SAFETY: windows go when the test has waited for everything.
    unsafe { on.wait_signals(&awaited)?.run() }
}

fn around(comm: &Communicator) -> (u32, u32) {
    let (rank, size) = (comm.rank(), comm.size());
    ((rank + 1) % size, (rank + size - 1) % size)
}

#[test]
fn a_ring_in_both_directions_and_to_itself() {
    for transport in transports() {
        on_ranks(3, &config(transport, ""), |comm| {
            let (next, last) = around(&comm);
            let own = Own::new(&comm, 3 * LARGE);
            for turn in 1..=5_u64 {
                let value = |rank: u32| 100 * turn + u64::from(rank);
                let x = vec![value(comm.rank()); LARGE];
                put(&comm, &x, next, &own, 0).unwrap();
                put(&comm, &x, last, &own, LARGE).unwrap();
                put(&comm, &x[..7], comm.rank(), &own, 2 * LARGE).unwrap();
                // It may be used again.
                drop(x);
                wait(&comm, &[(last, 1), (next, 1), (comm.rank(), 1)]).unwrap();
                let seen = own.read();
                assert_eq!(seen[..LARGE], vec![value(last); LARGE]);
                assert_eq!(seen[LARGE..2 * LARGE], vec![value(next); LARGE]);
                assert_eq!(seen[2 * LARGE..][..7], [value(comm.rank()); 7]);
                // Nobody puts before all have read.
                comm.barrier().unwrap();
            }
            comm.clone().finish().unwrap();
            drop(own);
        });
    }
}

#[test]
fn a_put_waits_for_nobody() {
    on_ranks(3, &config("", ""), |comm| {
        let own = Own::new(&comm, LARGE);
        let stream = Stream::new();
        let on = comm.on(&stream);
        match comm.rank() {
            0 => {
                let x = vec![5; LARGE];
                // Rank 1 waits for it last of all, behind what waits for these.
                put(&comm, &x, 1, &own, 0).unwrap();
                put(&on, &x, 1, &own, 0).unwrap();
                put(&on, &x, 2, &own, 0).unwrap();
                on.barrier().unwrap();
                comm.barrier().unwrap();
            }
            1 => {
                wait(&comm, &[(2, 1)]).unwrap();
                comm.barrier().unwrap();
                comm.barrier().unwrap();
                std::thread::sleep(LATE);
                assert_eq!(own.read()[LARGE - 1], 0, "it comes when it is waited for");
                wait(&comm, &[(0, 1)]).unwrap();
                wait(&comm, &[(0, 1)]).unwrap();
                assert_eq!(own.read(), vec![5; LARGE]);
            }
            _ => {
                wait(&comm, &[(0, 1)]).unwrap();
                assert_eq!(own.read(), vec![5; LARGE]);
                signal(&comm, 1).unwrap();
                comm.barrier().unwrap();
                comm.barrier().unwrap();
            }
        }
        stream.synchronize().unwrap();
        comm.barrier().unwrap();
    });
}

/// Adds all ranks' words up, in place.
fn start_sum(on: &Communicator, words: *mut u64, count: usize) {
    let call = Call {
        collective: Collective::AllReduce,
        dtype: DataType::U64,
        op: Some(ReduceOp::Sum),
        root: None,
        count: count as u64,
    };
    let raw = on.raw(&call, RawSizes::Equal, None, words.cast_const().cast(), words.cast()).unwrap();
    // SAFETY: the test keeps the words until their stream has ended.
    drop(unsafe { on.start_raw(raw) });
}

#[test]
fn calls_on_a_stream_keep_its_order() {
    for background in [true, false] {
        on_ranks(2, &config("", ""), move |comm| {
            let peer = 1 - comm.rank();
            let own = Own::new(&comm, LARGE);
            let stream = Stream::new();
            stream.set_background(background).unwrap();
            let on = comm.on(&stream);
            for turn in 1..=4 {
                let mut x = vec![turn * (u64::from(comm.rank()) + 1); LARGE];
                if comm.rank() == 0 {
                    std::thread::sleep(Duration::from_millis(20));
                }
                // The put takes the sum, and what was put is added up.
                start_sum(&on, x.as_mut_ptr(), LARGE);
                put(&on, &x, peer, &own, 0).unwrap();
                wait(&on, &[(peer, 1)]).unwrap();
                start_sum(&on, own.window.memory().cast(), LARGE);
                stream.synchronize().unwrap();
                assert_eq!(own.read(), vec![6 * turn; LARGE]);
            }
            // To itself, behind a call that takes its time; the wait is made first on another stream.
            let other = Stream::new();
            wait(&comm.on(&other), &[(comm.rank(), 2)]).unwrap();
            if comm.rank() == 0 {
                std::thread::sleep(LATE);
            }
            drop(on.start_barrier());
            put(&on, &[9; 5], comm.rank(), &own, 3).unwrap();
            assert!(!other.is_idle());
            signal(&on, comm.rank()).unwrap();
            other.synchronize().unwrap();
            stream.synchronize().unwrap();
            assert_eq!(own.read()[2..9], [24, 9, 9, 9, 9, 9, 24]);
        });
    }
}

#[test]
fn a_stream_is_as_long_as_it_likes() {
    const MANY: u64 = 10_000;
    on_ranks(2, &config("", ""), |comm| {
        let own = Own::new(&comm, 1);
        let peer = 1 - comm.rank();
        let stream = Stream::new();
        let on = comm.on(&stream);
        if comm.rank() == 0 {
            std::thread::sleep(LATE);
        }
        drop(on.start_barrier());
        let words: Vec<u64> = (1..=MANY).collect();
        for word in words.chunks(1) {
            put(&on, word, peer, &own, 0).unwrap();
            signal(&on, comm.rank()).unwrap();
            wait(&on, &[(comm.rank(), 1)]).unwrap();
        }
        wait(&on, &[(peer, MANY)]).unwrap();
        stream.synchronize().unwrap();
        assert_eq!(own.read(), [MANY]);
    });
}

#[test]
fn in_groups_puts_come_first_and_waits_last() {
    on_ranks(3, &config("", ""), |comm| {
        let own = Own::new(&comm, 300);
        let (next, last) = around(&comm);
        let x = [u64::from(comm.rank()) + 1; 100];
        let mut sum = [1_u64; 4];
        let mut calls = RawGroup::new();
        for peer in 0..comm.size() {
            let signals = [Signals { from: peer, count: if peer == last { 2 } else { 1 } }];
            calls.add_one_sided(comm.wait_signals(&signals).unwrap());
            let offset = 800 * u64::from(comm.rank());
            calls.add_one_sided(comm.put_signal(x.as_ptr().cast(), 800, peer, &own.window, offset).unwrap());
        }
        calls.add_one_sided(comm.signal(next).unwrap());
        let call = Call {
            collective: Collective::AllReduce,
            dtype: DataType::U64,
            op: Some(ReduceOp::Sum),
            root: None,
            count: 4,
        };
        let words = sum.as_mut_ptr();
        calls.add(&comm, comm.raw(&call, RawSizes::Equal, None, words.cast_const().cast(), words.cast()));
        // SAFETY: everything is this group's until it has ended.
        unsafe { calls.run() }.unwrap();
        assert_eq!(own.read(), [[1; 100], [2; 100], [3; 100]].concat());
        assert_eq!(sum, [3; 4]);
        comm.barrier().unwrap();
        // Nothing of a group is done if one of its calls cannot be.
        let mut calls = RawGroup::new();
        calls.add_one_sided(comm.signal(next).unwrap());
        let lost = Call { collective: Collective::Send, op: None, root: Some(comm.rank()), ..call };
        calls.add(&comm, comm.raw(&lost, RawSizes::Equal, None, words.cast_const().cast(), words.cast()));
        // SAFETY: as above.
        assert!(matches!(unsafe { calls.run() }, Err(Error::InvalidArgument { .. })));
        put(&comm, &[7], next, &own, 0).unwrap();
        wait(&comm, &[(last, 1)]).unwrap();
        assert_eq!(own.read()[0], 7);
        comm.barrier().unwrap();
    });
}

/// The same on all ranks for the same words.
fn random(words: &[u64]) -> u64 {
    words.iter().fold(0x243f_6a88_85a3_08d3, |state: u64, word| {
        let mixed = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (mixed >> 32)
    })
}

/// Where the k-th put of a rank to another goes in the part of the window that is the first rank's, and what it is.
fn kth_put(seed: u64, from: u32, to: u32, k: u64, part: usize) -> (usize, Vec<u64>) {
    let random = |what| random(&[seed, from.into(), to.into(), k, what]);
    let longest = [0, 5, 60, 2000, part][random(0) as usize % 5];
    let len = random(1) as usize % (longest + 1);
    let word = random(2) as usize % (part - len + 1);
    (word, (0..len as u64).map(|i| random(3) ^ i).collect())
}

#[test]
fn windows_are_what_a_model_says() {
    const STEPS: u64 = 40;
    const PART: usize = 20_000;
    for (seed, ranks) in [(1, 2), (2, 3), (3, 4), (4, 3)] {
        on_ranks(ranks, &config("", ""), move |comm| {
            let (rank, size) = (comm.rank() as usize, comm.size() as usize);
            let own = Own::new(&comm, PART * size);
            let mut model = vec![0; PART * size];
            let stream = Stream::new();
            let on = comm.on(&stream);
            // By sender and receiver; and what this rank has waited for.
            let (mut made, mut seen) = (vec![vec![0; size]; size], vec![0; size]);
            let mut kept = VecDeque::new();
            for step in 0..=STEPS {
                let by = |what: u64| {
                    if random(&[seed, 1, rank as u64, step, what]).is_multiple_of(2) {
                        return &on;
                    }
                    // What is made without a stream does not wait for it.
                    stream.synchronize().unwrap();
                    &comm
                };
                // Which puts are made all know, so nobody waits for what is not.
                for (from, made) in made.iter_mut().enumerate() {
                    let puts = random(&[seed, 2, from as u64, step]) % 4;
                    for to in (0..puts).map(|i| random(&[seed, 3, from as u64, step, i]) as usize % size) {
                        let k = made[to];
                        made[to] += 1;
                        if from != rank {
                            continue;
                        }
                        let (word, values) = kth_put(seed, from as u32, to as u32, k, PART);
                        let at = rank * PART + word;
                        put(by(k), &values, to as u32, &own, at).unwrap();
                        if to == rank {
                            // That is there before it is waited for.
                            model[at..at + values.len()].copy_from_slice(&values);
                        }
                        kept.push_back(values);
                    }
                }
                let mut awaited = Vec::new();
                for from in 0..size {
                    let left = made[from][rank] - seen[from];
                    let some = random(&[seed, 4, rank as u64, step, from as u64]) % (left + 1);
                    let count = if step == STEPS { left } else { some };
                    for k in (seen[from]..seen[from] + count).filter(|_| from != rank) {
                        let (word, values) = kth_put(seed, from as u32, rank as u32, k, PART);
                        let at = from * PART + word;
                        model[at..at + values.len()].copy_from_slice(&values);
                    }
                    seen[from] += count;
                    awaited.push((from as u32, count));
                }
                wait(by(99), &awaited).unwrap();
                stream.synchronize().unwrap();
                assert!(own.read() == model, "rank {rank} at step {step}");
            }
            comm.barrier().unwrap();
        });
    }
}

fn aborted(error: &Error) -> (u32, &str) {
    match error.failure() {
        Some(Failure::Aborted { member, why }) => (member.rank, why),
        _ => panic!("{error}"),
    }
}

#[test]
fn what_misses_its_window_is_told_by_the_receiver_and_written_nowhere() {
    for (offset, words, deregister, says) in [
        (24_u64, 8, false, "rank 0 put 64 bytes at offset 24 of window 1, which has 80 bytes on rank 2"),
        (1 << 63, 1, false, "rank 0 put 8 bytes at offset 9223372036854775808 of window 1"),
        (0, 8, true, "rank 0 put 64 bytes at offset 0 of window 1, which rank 2 has deregistered"),
    ] {
        on_ranks(3, &config("", ""), move |comm| {
            let _first = Own::new(&comm, 1);
            // Of another length on each rank.
            let own = Own::new(&comm, if comm.rank() == 2 { 10 } else { 1000 });
            let (memory, window) = (own.memory, own.window);
            let error = match comm.rank() {
                0 => {
                    let x = [7_u64; 8];
                    for offset in [0, offset] {
                        let call = comm.put_signal(x.as_ptr().cast(), 8 * words, 2, &window, offset);
                        // SAFETY: the words are there.
                        unsafe { call.unwrap().run() }.unwrap();
                    }
                    comm.barrier().unwrap_err()
                }
                1 => comm.barrier().unwrap_err(),
                _ => {
                    if deregister {
                        drop(window);
                        wait(&comm, &[(0, 1)]).unwrap_err()
                    } else {
                        wait(&comm, &[(0, 1)]).unwrap();
                        wait(&comm, &[(0, 1)]).unwrap_err()
                    }
                }
            };
            let (by, why) = aborted(&error);
            assert!(by == 2 && why.contains(says), "{error}");
            drop(memory);
        });
    }
}

#[test]
fn an_abort_ends_waits() {
    for transport in transports() {
        on_ranks(3, &config(transport, ""), |comm| {
            let stream = Stream::new();
            let began = Instant::now();
            // Everybody has met everybody.
            comm.barrier().unwrap();
            let errors = match comm.rank() {
                0 => {
                    std::thread::sleep(LATE);
                    comm.abort("enough");
                    vec![signal(&comm, 1).unwrap_err()]
                }
                1 => vec![wait(&comm, &[(2, 1), (0, 1)]).unwrap_err()],
                // For a signal of its own, which no message tells of.
                _ => {
                    wait(&comm.on(&stream), &[(2, 1)]).unwrap();
                    vec![stream.synchronize().unwrap_err(), wait(&comm, &[(1, 1)]).unwrap_err()]
                }
            };
            errors.iter().for_each(|error| assert_eq!(aborted(error), (0, "enough")));
            assert!(began.elapsed() < Duration::from_secs(8));
        });
    }
}

#[test]
fn a_wait_has_the_deadline_of_a_call() {
    for source in [0, 2] {
        let mut config = config("", "");
        config.timeout = Duration::from_millis(600);
        on_ranks(3, &config, move |comm| {
            comm.barrier().unwrap();
            let stream = Stream::new();
            let began = Instant::now();
            let error = if comm.rank() == 2 {
                if source == 0 {
                    wait(&comm.on(&stream), &[(source, 1)]).unwrap();
                    stream.synchronize().unwrap_err()
                } else {
                    wait(&comm, &[(source, 1)]).unwrap_err()
                }
            } else {
                // It may signal as long before as it likes.
                signal(&comm, 1 - comm.rank()).unwrap();
                let patient = Duration::from_secs(20);
                while comm.check().is_ok() && began.elapsed() < patient {
                    std::thread::sleep(Duration::from_millis(10));
                }
                comm.check().unwrap_err()
            };
            match error.failure() {
                Some(Failure::Timeout { rank: 2, waiting_for, .. }) => {
                    assert_eq!(waiting_for.iter().map(|of| of.rank).collect::<Vec<_>>(), [source]);
                }
                _ => panic!("{error}"),
            }
            // The others may have begun to look later than it began to wait.
            assert!((400..8000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        });
    }
}

#[test]
fn leaving_takes_little_time_whatever_nobody_waited_for() {
    for finish in [true, false] {
        on_ranks(2, &config("", ""), move |comm| {
            let own = Own::new(&comm, LARGE);
            let began = Instant::now();
            put(&comm, &vec![1; LARGE], 1 - comm.rank(), &own, 0).unwrap();
            signal(&comm, comm.rank()).unwrap();
            let another = comm.clone();
            if finish {
                comm.finish().unwrap();
                assert!(matches!(signal(&another, 0), Err(Error::Finished { .. })));
            }
            drop(another);
            assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
        });
    }
}

#[test]
fn who_leaves_waits_for_those_that_are_late() {
    on_ranks(2, &config("", ""), |comm| {
        let own = Own::new(&comm, LARGE);
        if comm.rank() == 0 {
            put(&comm, &vec![1; LARGE], 1, &own, 0).unwrap();
        } else {
            std::thread::sleep(LATE);
            wait(&comm, &[(0, 1)]).unwrap();
            assert_eq!(own.read(), vec![1; LARGE]);
        }
        comm.finish().unwrap();
    });
}

#[test]
fn who_leaves_waits_for_what_is_on_its_streams() {
    on_ranks(2, &config("", ""), |comm| {
        let other = comm.duplicate().unwrap();
        let own = Own::new(&comm, 5);
        let stream = Stream::new();
        if comm.rank() == 0 {
            drop(other.on(&stream).start_barrier());
            put(&comm.on(&stream), &[3; 5], 1, &own, 0).unwrap();
            comm.finish().unwrap();
            assert!(stream.is_idle());
        } else {
            let on = comm.on(&stream);
            std::thread::sleep(LATE);
            drop(other.on(&stream).start_barrier());
            wait(&on, &[(0, 1)]).unwrap();
            drop(on);
            comm.finish().unwrap();
            assert_eq!(own.read(), [3; 5]);
        }
        stream.synchronize().unwrap();
    });
}

#[test]
fn who_waits_too_late_is_told_who_left() {
    on_ranks(2, &config("", ""), |comm| {
        let own = Own::new(&comm, LARGE);
        // They have met.
        signal(&comm, 1 - comm.rank()).unwrap();
        wait(&comm, &[(1 - comm.rank(), 1)]).unwrap();
        if comm.rank() == 0 {
            put(&comm, &vec![1; LARGE], 1, &own, 0).unwrap();
            comm.finish().unwrap();
        } else {
            std::thread::sleep(Duration::from_secs(6));
            let error = wait(&comm, &[(0, 1)]).unwrap_err().to_string();
            let left = "left before rank 1 had waited for all of its signals";
            assert!(error.contains(left) && error.contains("rank 0"), "{error}");
        }
    });
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_breaks() {
    on_ranks(2, &config("", ""), |comm| {
        let other = comm.duplicate().unwrap();
        let (own, foreign) = (Own::new(&comm, 8), Own::new(&other, 8));
        let refused = |result: Result<()>, words: &str| match result {
            Err(error @ Error::InvalidArgument { .. }) => {
                assert!(error.to_string().contains(words), "{error}");
            }
            other => panic!("{other:?}"),
        };
        refused(put(&comm, &[1], 2, &own, 0), "rank 2 in a communicator of 2 ranks");
        refused(put(&comm, &[1], 0, &foreign, 0), "another communicator");
        refused(put(&comm, &[1], comm.rank(), &own, 8), "which has 64 bytes");
        refused(signal(&comm, 7), "rank 7");
        refused(wait(&comm, &[(0, 0), (5, 1)]), "rank 5");
        refused(comm.put_signal(std::ptr::null(), 1, 0, &own.window, 0).map(drop), "null pointer");
        wait(&comm, &[]).unwrap();
        wait(&comm, &[(1, 0), (0, 0)]).unwrap();
        // The windows of each communicator have numbers of their own.
        assert_eq!((own.window.number(), foreign.window.number()), (0, 0));
        put(&other, &[4], 1 - comm.rank(), &foreign, 2).unwrap();
        wait(&other, &[(1 - comm.rank(), 1)]).unwrap();
        assert_eq!(foreign.read(), [0, 0, 4, 0, 0, 0, 0, 0]);
        comm.barrier().unwrap();
    });
}

#[test]
fn threads_wait_for_different_ranks_at_once() {
    on_ranks(3, &config("", ""), |comm| {
        let own = Own::new(&comm, 8);
        if comm.rank() == 0 {
            std::thread::scope(|threads| {
                let late = threads.spawn(|| wait(&comm, &[(1, 1)]));
                threads.spawn(|| {
                    wait(&comm, &[(2, 1)]).unwrap();
                    signal(&comm, 1).unwrap();
                });
                late.join().unwrap().unwrap();
            });
            assert_eq!(own.read()[..2], [1, 2]);
        } else {
            if comm.rank() == 1 {
                wait(&comm, &[(0, 1)]).unwrap();
            }
            put(&comm, &[comm.rank().into()], 0, &own, comm.rank() as usize - 1).unwrap();
        }
        comm.barrier().unwrap();
    });
}

/// Nobody hears of a deadline on a communicator that this rank has left, so it is told here; and not by a thread that must not
/// block, as what follows on a stream may.
#[test]
fn a_wait_that_its_communicator_leaves_behind_ends() {
    let mut config = config("", "");
    config.timeout = Duration::from_millis(300);
    on_ranks(1, &config, |alone| {
        let (stream, began) = (Stream::new(), Instant::now());
        wait(&alone.on(&stream), &[(0, 1)]).unwrap();
        let (told, thread) = std::sync::mpsc::channel();
        stream.on_end(move |_| told.send(std::thread::current().name().map(str::to_owned)).unwrap());
        drop(alone);
        stream.synchronize().expect_err("no signal comes");
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        let thread = thread.recv_timeout(Duration::from_secs(5)).expect("the callback");
        assert_ne!(thread.as_deref(), Some("rccl-control"));
    });
}

#[test]
fn an_own_window_that_is_missed_is_told_before_anything_is_made() {
    on_ranks(1, &config("", ""), |alone| {
        let (own, none) = (Own::new(&alone, 4), Own::new(&alone, 0));
        let x = [1_u64; 2];
        let call = alone.put_signal(x.as_ptr().cast(), 16, 0, &own.window, 24);
        let error = call.err().expect("two words where one is left").to_string();
        assert!(error.contains("32 bytes"), "{error}");
        assert_eq!(none.window.memory(), none.memory.as_ptr().cast_mut().cast());
    });
}
