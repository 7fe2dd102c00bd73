//! Streams: the order of calls across communicators.

mod common;

use common::{config, on_ranks, transports};
use rccl::{Communicator, Failure, ReduceOp, Stream, Work, group};
use std::time::{Duration, Instant};

const LATE: Duration = Duration::from_millis(150);
/// Long enough to be sure that what could go on has gone on.
const SOON: Duration = Duration::from_millis(60);

/// Until it is done, at most some seconds.
fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < end, "it does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn sum(on: &Communicator) -> Work<Vec<i32>> {
    on.start_all_reduce(vec![1; 20_000], ReduceOp::Sum)
}

#[test]
fn calls_on_a_stream_wait_for_each_other_across_communicators() {
    for transport in transports() {
        on_ranks(2, &config(transport, ""), |first| {
            let second = first.duplicate().unwrap();
            if first.rank() == 1 {
                let second = sum(&second);
                std::thread::sleep(LATE);
                // The other rank has not begun it, since what it has on its stream before has not ended.
                assert!(!second.is_done());
                assert_eq!(sum(&first).wait().unwrap()[0], 2);
                assert_eq!(second.wait().unwrap()[19_999], 2);
                return;
            }
            let stream = Stream::new();
            let works = [sum(&first.on(&stream)), sum(&second.on(&stream))];
            assert!(!stream.is_idle());
            std::thread::sleep(SOON);
            assert!(works.iter().all(|work| !work.is_done()));
            stream.synchronize().unwrap();
            assert!(stream.is_idle() && works.iter().all(Work::is_done));
        });
    }
}

#[test]
fn calls_on_different_streams_do_not_wait_for_each_other() {
    on_ranks(2, &config("", ""), |first| {
        let second = first.duplicate().unwrap();
        let (one, other) = (Stream::new(), Stream::new());
        if first.rank() == 1 {
            sum(&second).wait().unwrap();
            std::thread::sleep(LATE);
            sum(&first).wait().unwrap();
            return;
        }
        let (late, soon) = (sum(&first.on(&one)), sum(&second.on(&other)));
        other.synchronize().unwrap();
        assert!(soon.is_done() && !late.is_done() && !one.is_idle());
        assert!(!one.synchronize_timeout(Duration::from_millis(1)).unwrap());
        // From here on the other waits for it.
        other.wait_for(&one);
        assert!(other.is_idle(), "it has nothing to wait with");
        late.wait().unwrap();
    });
}

#[test]
fn a_stream_can_wait_for_another() {
    on_ranks(2, &config("", ""), |first| {
        let second = first.duplicate().unwrap();
        let (one, other) = (Stream::new(), Stream::new());
        if first.rank() == 1 {
            let second = sum(&second);
            std::thread::sleep(LATE);
            assert!(!second.is_done());
            sum(&first).wait().unwrap();
            second.wait().unwrap();
            return;
        }
        let first = sum(&first.on(&one));
        other.wait_for(&one);
        let second = sum(&second.on(&other));
        // Whoever waits for one call alone gets it, too.
        assert_eq!(second.wait().unwrap()[0], 2);
        assert!(first.is_done());
    });
}

#[test]
fn blocking_calls_and_groups_take_their_turn() {
    on_ranks(3, &config("", ""), |first| {
        let second = first.duplicate().unwrap();
        let (rank, size) = (first.rank(), first.size());
        let stream = Stream::new();
        let (on_first, on_second) = (first.on(&stream), second.on(&stream));
        for turn in 0..50_u32 {
            let before = sum(&on_first);
            let mut x = [turn + rank];
            on_second.all_reduce(&mut x, ReduceOp::Max).unwrap();
            assert_eq!(x, [turn + size - 1]);
            assert!(before.is_done(), "turn {turn}");
            // In another order on every rank: together they are one step of the stream.
            let (mine, mut theirs, mut most) = ([rank; 9_000], [0; 9_000], [rank]);
            let behind = sum(&on_first);
            if rank == turn % 3 {
                group(|calls| {
                    calls.all_reduce(&on_first, &mut most, ReduceOp::Max);
                    calls.send(&on_second, &mine, (rank + 1) % size);
                    calls.recv(&on_second, &mut theirs, (rank + size - 1) % size);
                })
            } else {
                group(|calls| {
                    calls.recv(&on_second, &mut theirs, (rank + size - 1) % size);
                    calls.send(&on_second, &mine, (rank + 1) % size);
                    calls.all_reduce(&on_first, &mut most, ReduceOp::Max);
                })
            }
            .unwrap();
            assert!(behind.is_done());
            assert_eq!((theirs[8_999], most), ((rank + size - 1) % size, [size - 1]));
        }
        assert!(stream.is_idle());
    });
}

#[test]
fn nobody_has_to_wait() {
    on_ranks(2, &config("", ""), |first| {
        let second = first.duplicate().unwrap();
        let stream = Stream::new();
        for _ in 0..20 {
            drop((sum(&first.on(&stream)), sum(&second.on(&stream))));
        }
        until(|| stream.is_idle());
        // What is left of a stream does not keep communicators.
        drop((first, second, stream));
    });
}

#[test]
fn the_first_error_is_told_once_and_later_calls_go_on() {
    on_ranks(2, &config("", ""), |first| {
        let second = first.duplicate().unwrap();
        // The other rank has it too.
        second.barrier().unwrap();
        let stream = Stream::new();
        if first.rank() == 0 {
            first.abort("on purpose");
        }
        until(|| first.check().is_err());
        let failed = sum(&first.on(&stream));
        let good = sum(&second.on(&stream));
        let error = stream.synchronize().unwrap_err();
        assert!(matches!(error.failure(), Some(Failure::Aborted { .. })), "{error}");
        stream.synchronize().unwrap();
        assert_eq!(failed.wait().unwrap_err().to_string(), error.to_string());
        assert_eq!(good.wait().unwrap()[0], 2);
    });
}

#[test]
fn threads_share_a_stream() {
    // Of one rank: others would have to come in the same order.
    on_ranks(1, &config("", ""), |comm| {
        let stream = Stream::new();
        let copies: Vec<Communicator> = (0..4).map(|_| comm.duplicate().unwrap()).collect();
        std::thread::scope(|threads| {
            for copy in &copies {
                threads.spawn(|| {
                    let own = Stream::new();
                    for _ in 0..300 {
                        let work = sum(&copy.on(&stream));
                        own.wait_for(&stream);
                        let behind = sum(&copy.on(&own));
                        stream.wait_for(&own);
                        assert_eq!(behind.wait().unwrap()[0], 1);
                        assert!(work.is_done());
                    }
                    own.synchronize().unwrap();
                });
            }
        });
        stream.synchronize().unwrap();
    });
}

#[test]
fn threads_have_streams_of_their_own() {
    on_ranks(2, &config("", ""), |comm| {
        let copies: Vec<[Communicator; 2]> =
            (0..3).map(|_| [comm.duplicate().unwrap(), comm.duplicate().unwrap()]).collect();
        std::thread::scope(|threads| {
            for pair in &copies {
                threads.spawn(move || {
                    let stream = Stream::new();
                    let [one, other] = [pair[0].on(&stream), pair[1].on(&stream)];
                    for _ in 0..100 {
                        let works = [sum(&one), sum(&other), sum(&one)];
                        works.into_iter().for_each(|work| assert_eq!(work.wait().unwrap()[0], 2));
                    }
                    assert!(stream.is_idle());
                });
            }
        });
    });
}

#[test]
fn an_end_is_told_to_who_asked_and_may_make_calls() {
    on_ranks(2, &config("", ""), |world| {
        let (stream, next) = (Stream::new(), Stream::new());
        let first = sum(&world.on(&stream));
        let (tell, told) = std::sync::mpsc::channel();
        let (on, tell_next) = (world.on(&next), tell.clone());
        stream.on_end(move |ended| {
            let second = sum(&on);
            next.on_end(move |ended| tell_next.send((2, ended.is_ok())).unwrap());
            drop(second);
            tell.send((1, ended.is_ok())).unwrap();
        });
        assert_eq!(first.wait().unwrap()[0], 2);
        let mut both = [0; 2].map(|_| told.recv_timeout(Duration::from_secs(20)).unwrap());
        both.sort_unstable();
        assert_eq!(both, [(1, true), (2, true)]);
        // Nothing is under way: at once, on this thread.
        let here = std::thread::current().id();
        let (tell, told) = std::sync::mpsc::channel();
        stream.on_end(move |_| tell.send(std::thread::current().id()).unwrap());
        assert_eq!(told.try_recv(), Ok(here));
    });
}

#[test]
fn a_stream_has_a_deadline_of_its_own() {
    on_ranks(2, &config("", ""), |world| {
        let part = world.duplicate().unwrap();
        if world.rank() == 0 {
            let (stream, (tell, told)) = (Stream::new(), std::sync::mpsc::channel());
            stream.set_timeout(Some(SOON));
            let began = Instant::now();
            drop(sum(&part.on(&stream)));
            stream.on_end(move |ended| tell.send(ended).unwrap());
            let error = told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap_err();
            assert!(matches!(error.failure(), Some(Failure::Timeout { .. })), "{error}");
            assert!(began.elapsed() >= SOON);
            assert!(stream.synchronize().is_err(), "it tells that too");
        }
        world.barrier().unwrap();
    });
}

#[test]
fn a_stream_tells_of_calls_that_were_refused_too() {
    on_ranks(2, &config("", ""), |world| {
        let stream = Stream::new();
        drop(world.on(&stream).start_send(vec![1_u8; 4], world.rank()));
        assert!(stream.synchronize().unwrap_err().to_string().contains("itself"));
        stream.synchronize().unwrap();
        world.barrier().unwrap();
    });
}

#[test]
fn what_is_left_to_waiters_is_moved_when_another_communicator_waits_for_it() {
    on_ranks(2, &config("", ""), |first| {
        let second = first.duplicate().unwrap();
        let (stream, other) = (Stream::new(), Stream::new());
        stream.set_background(false).unwrap();
        let behind = [sum(&second.on(&stream)), sum(&first.on(&stream))];
        // Behind the second of them, which waits for the first; nobody waits for that one.
        assert!(sum(&first).wait_timeout(Duration::from_secs(20)).unwrap());
        behind.into_iter().for_each(|work| assert_eq!(work.wait().unwrap()[0], 2));
        let late = sum(&second.on(&stream));
        other.wait_for(&stream);
        let mut last = sum(&first.on(&other));
        assert!(last.wait_timeout(Duration::from_secs(20)).unwrap());
        assert_eq!(late.wait().unwrap()[0], 2);
    });
}

#[test]
fn every_stream_of_a_group_tells_of_its_failure() {
    on_ranks(2, &config("", ""), |first| {
        if first.rank() == 1 {
            until(|| first.check().is_err());
            return;
        }
        let streams = [Stream::new(), Stream::new()];
        streams[0].set_timeout(Some(SOON));
        let mut x = [[1; 4]; 2];
        let failed = group(|calls| {
            for (stream, x) in streams.iter().zip(&mut x) {
                calls.all_reduce(&first.on(stream), x, ReduceOp::Sum);
            }
        });
        assert!(failed.is_err());
        for stream in &streams {
            assert!(stream.synchronize().is_err());
            stream.synchronize().unwrap();
        }
    });
}

#[test]
fn a_panic_at_the_end_of_a_call_stops_no_other() {
    on_ranks(2, &config("", ""), |comm| {
        let stream = Stream::new();
        let work = sum(&comm.on(&stream));
        stream.on_end(|_| panic!("a test's, on purpose"));
        assert_eq!(work.wait().unwrap()[0], 2);
        stream.on_end(|_| panic!("another, at once"));
        assert_eq!(sum(&comm.on(&stream)).wait().unwrap()[0], 2);
    });
}
