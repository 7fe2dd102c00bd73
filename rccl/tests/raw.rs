//! Calls on raw memory that are watched, or have a deadline of their own.

mod common;

use common::{config, on_ranks};
use rccl::{Call, Collective, Communicator, DataType, Failure, Raw, RawSizes, ReduceOp};
use std::time::{Duration, Instant};

fn sum(comm: &Communicator, x: &mut [f32]) -> Raw {
    let call = Call {
        collective: Collective::AllReduce,
        dtype: DataType::F32,
        op: Some(ReduceOp::Sum),
        root: None,
        count: x.len() as u64,
    };
    comm.raw(&call, RawSizes::Equal, None, x.as_ptr().cast(), x.as_mut_ptr().cast()).unwrap()
}

const OFTEN: Duration = Duration::from_millis(10);

/// The first of its kind is queued; those after it run on this thread, until they have waited for too long.
#[test]
fn whoever_watches_is_asked_while_the_call_waits_and_may_give_up() {
    on_ranks(2, &config("", ""), |comm| {
        let mut x = [comm.rank() as f32 + 1.0; 1000];
        for late in [0, 0, 1, 0, 1, 0] {
            x.fill(comm.rank() as f32 + 1.0);
            let late = late == 1;
            if late && comm.rank() == 0 {
                std::thread::sleep(Duration::from_millis(300));
            }
            let raw = sum(&comm, &mut x);
            let mut asked = 0;
            let watch = || {
                asked += 1;
                None
            };
            // SAFETY: the array is this call's until it returns.
            unsafe { comm.run_raw_watched(raw, OFTEN, watch) }.unwrap();
            assert_eq!(x, [3.0; 1000]);
            assert!(comm.rank() == 0 || !late || (5..100).contains(&asked), "asked {asked} times");
        }

        let why = if comm.rank() == 1 {
            let raw = sum(&comm, &mut x);
            // SAFETY: as above.
            unsafe { comm.run_raw_watched(raw, OFTEN, || Some("enough".into())) }
        } else {
            std::thread::sleep(Duration::from_millis(200));
            comm.barrier()
        };
        match why.unwrap_err().failure() {
            Some(Failure::Aborted { member, why }) => assert_eq!((member.rank, why.as_str()), (1, "enough")),
            other => panic!("{other:?}"),
        }
    });
}

/// A signal's handler may call what it likes, also on this communicator: such a call comes after the one that waits.
#[test]
fn whoever_watches_may_make_calls() {
    on_ranks(2, &config("", ""), |comm| {
        let mut x = [1.0; 10];
        for _ in 0..3 {
            x.fill(1.0);
            if comm.rank() == 0 {
                std::thread::sleep(Duration::from_millis(100));
                // SAFETY: the array is this call's until it returns.
                unsafe { comm.run_raw(sum(&comm, &mut x)) }.unwrap();
                comm.barrier().unwrap();
            } else {
                let mut met = false;
                let raw = sum(&comm, &mut x);
                let watch = || {
                    if !met {
                        comm.barrier().unwrap();
                        met = true;
                    }
                    None
                };
                // SAFETY: as above.
                unsafe { comm.run_raw_watched(raw, OFTEN, watch) }.unwrap();
                assert!(met);
            }
            assert_eq!(x, [2.0; 10]);
        }
    });
}

/// Another thread's call is at the engine, so it is queued behind that.
#[test]
fn watched_calls_of_several_threads_end_in_turn() {
    on_ranks(2, &config("", ""), |comm| {
        let together = || {
            for _ in 0..500 {
                let mut x = [1.0; 10];
                // SAFETY: the array is this call's until it returns.
                unsafe { comm.run_raw_watched(sum(&comm, &mut x), Duration::from_millis(1), || None) }
                    .unwrap();
                assert_eq!(x, [2.0; 10]);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(together);
            together();
        });
    });
}

/// It ends when its deadline does, though it was handed over meanwhile.
#[test]
fn a_watched_call_has_the_deadline_of_its_communicator() {
    let mut config = config("", "");
    config.timeout = Duration::from_millis(400);
    on_ranks(2, &config, |comm| {
        let mut x = [1.0; 10];
        for _ in 0..2 {
            // SAFETY: the array is this call's until it returns.
            unsafe { comm.run_raw_watched(sum(&comm, &mut x), OFTEN, || None) }.unwrap();
        }
        if comm.rank() == 0 {
            let began = Instant::now();
            // SAFETY: as above.
            let error = unsafe { comm.run_raw_watched(sum(&comm, &mut x), OFTEN, || None) }.unwrap_err();
            assert!(
                matches!(error.failure(), Some(Failure::Timeout { rank: 0, sequence: 3, .. })),
                "{error}"
            );
            assert!(began.elapsed() < Duration::from_secs(2));
        } else {
            std::thread::sleep(Duration::from_secs(1));
            assert!(comm.barrier().is_err());
        }
    });
}

#[test]
fn a_call_may_have_a_deadline_of_its_own() {
    for background in [false, true] {
        on_ranks(2, &config("", ""), move |comm| {
            let mut x = [1.0; 10];
            // SAFETY: the array is this call's until it returns.
            unsafe { comm.run_raw(sum(&comm, &mut x).within(Duration::from_secs(20))) }.unwrap();
            assert_eq!(x, [2.0; 10]);
            let began = Instant::now();
            let error = if comm.rank() == 0 {
                let raw = sum(&comm, &mut x).within(Duration::from_millis(200));
                if background {
                    // SAFETY: the array is this call's until it has ended, which is waited for.
                    unsafe { comm.start_raw(raw) }.wait()
                } else {
                    // SAFETY: as above.
                    unsafe { comm.run_raw(raw) }
                }
            } else {
                std::thread::sleep(Duration::from_secs(1));
                comm.barrier()
            };
            assert!(began.elapsed() < Duration::from_secs(5));
            match error.unwrap_err().failure() {
                Some(Failure::Timeout { rank: 0, sequence: 2, waited, waiting_for }) => {
                    assert!((200..900).contains(&waited.as_millis()), "{waited:?}");
                    assert_eq!(waiting_for.iter().map(|of| of.rank).collect::<Vec<_>>(), [1]);
                }
                other => panic!("{other:?}"),
            }
        });
    }
}
