//! Calls that do not block: order, ownership, futures, threads.

#[path = "program/awaiting.rs"]
mod awaiting;
mod common;

use common::{config, on_ranks, transports};
use rccl::{Communicator, Failure, ReduceOp, Work};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

#[test]
fn works_run_in_order_with_blocking_calls_between() {
    for transport in transports() {
        on_ranks(3, &config(transport, ""), |comm| {
            let works: Vec<Work<Vec<i64>>> = (0..20_i64)
                .map(|i| {
                    comm.start_all_reduce(
                        vec![i + i64::from(comm.rank()); 1 + i as usize * 3000],
                        ReduceOp::Sum,
                    )
                })
                .collect();
            let mut x = [1_i32];
            comm.all_reduce(&mut x, ReduceOp::Sum).unwrap();
            assert_eq!(x, [3]);
            // The blocking call came after all of them.
            assert!(works.iter().all(Work::is_done));
            for (i, work) in works.into_iter().enumerate() {
                let x = work.wait().unwrap();
                assert!(x.iter().all(|&x| x == 3 * i as i64 + 3), "call {i}");
            }
        });
    }
}

#[test]
fn a_work_goes_on_without_being_waited_for() {
    on_ranks(2, &config("", ""), |comm| {
        let mut registered = comm.alloc::<u32>(500_000).unwrap();
        registered.fill(comm.rank() + 1);
        let work = comm.start_all_reduce(registered, ReduceOp::Prod);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !work.is_done() {
            assert!(Instant::now() < deadline, "it does not move");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(work.wait().unwrap().iter().all(|&x| x == 2));
    });
}

#[test]
fn a_short_call_that_waits_for_nobody_is_over_when_it_is_started() {
    // The first of a kind is not known yet, and the progress thread may be at the engine for a moment.
    const MOST: usize = 40;
    on_ranks(1, &config("", ""), |comm| {
        let at_once = (0..50).filter(|&n: &u64| {
            let work = comm.start_all_reduce(vec![n; 2], ReduceOp::Sum);
            let at_once = work.is_done();
            assert_eq!(work.wait().unwrap(), [n; 2]);
            at_once
        });
        let at_once = at_once.count();
        assert!(at_once >= MOST, "{at_once} of 50 by a rank alone");
    });
    let sent = Arc::new(AtomicU32::new(0));
    on_ranks(2, &config("", ""), move |comm| {
        // The root does not wait for those who receive, and one that finds the message there waits for nobody.
        let mut at_once = 0_usize;
        for round in 1..=50 {
            let deadline = Instant::now() + Duration::from_secs(20);
            while comm.rank() == 1 && sent.load(Ordering::Acquire) < round {
                assert!(Instant::now() < deadline, "round {round} is not sent");
                std::thread::yield_now();
            }
            let work = comm.start_broadcast(vec![if comm.rank() == 0 { round } else { 99 }; 2], 0);
            if comm.rank() == 0 {
                sent.store(round, Ordering::Release);
            }
            at_once += usize::from(work.is_done());
            assert_eq!(work.wait().unwrap(), [round; 2]);
            comm.barrier().unwrap();
        }
        assert!(at_once >= MOST, "{at_once} of 50 on rank {}", comm.rank());
    });
}

#[test]
fn dropping_a_work_leaves_it_under_way_and_dropping_the_communicator_too() {
    on_ranks(2, &config("", ""), |comm| {
        for i in 0..30 {
            drop(comm.start_all_gather_into(vec![i; 50_000], vec![0; 100_000]));
        }
        let last = comm.start_broadcast(vec![comm.rank() + 5; 10], 1);
        drop(comm);
        assert_eq!(last.wait().unwrap(), [6; 10]);
    });
}

#[test]
fn two_arrays_come_back() {
    on_ranks(2, &config("", ""), |comm| {
        let rank = comm.rank() as usize;
        let work = comm.start_reduce_scatter_into(
            vec![rank as f32 + 1.0; 8],
            vec![0.0; 4].into_boxed_slice(),
            ReduceOp::Avg,
        );
        let (input, output) = work.wait().unwrap();
        assert_eq!((input, &*output), (vec![rank as f32 + 1.0; 8], &[1.5; 4][..]));
        let work = comm.start_all_to_all_v_into(
            vec![rank as u64; 3],
            &[1, 2],
            vec![9; if rank == 0 { 2 } else { 4 }],
            if rank == 0 { &[1, 1] } else { &[2, 2] },
        );
        // Rank 1 says that it sends 1 and 2, and rank 0 that it gets 1 from it.
        let (_, out) = work.wait().unwrap();
        assert_eq!(out, if rank == 0 { vec![0, 1] } else { vec![0, 0, 1, 1] });
    });
}

#[test]
fn wait_timeout_says_whether_it_has_ended() {
    let looked = Arc::new(AtomicBool::new(false));
    on_ranks(2, &config("", ""), move |comm| {
        let end = Instant::now() + Duration::from_secs(20);
        while comm.rank() == 1 && !looked.load(Ordering::Acquire) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut work = comm.start_barrier();
        if comm.rank() == 0 {
            let began = Instant::now();
            assert!(!work.wait_timeout(Duration::from_millis(50)).unwrap());
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
            looked.store(true, Ordering::Release);
        }
        assert!(work.wait_timeout(Duration::from_secs(20)).unwrap());
        work.wait().unwrap();
    });
}

/// No work of this file takes this long.
fn block_on<F: Future>(future: F) -> F::Output {
    awaiting::block_on(future, Instant::now() + Duration::from_secs(30), "a work")
}

#[test]
fn a_work_can_be_awaited() {
    on_ranks(3, &config("", ""), |comm| {
        block_on(async {
            for i in 0..50_u64 {
                let x = comm.start_all_reduce(vec![i; 100], ReduceOp::Sum).await.unwrap();
                assert_eq!(x, [3 * i; 100]);
            }
            let (a, b) = (comm.start_barrier(), comm.start_broadcast(vec![comm.rank()], 2));
            assert_eq!(b.await.unwrap(), [2]);
            a.await.unwrap();
        });
    });
}

#[test]
fn a_scope_borrows_and_waits() {
    on_ranks(2, &config("", ""), |comm| {
        let (mut x, mut y) = (vec![1_u32; 300_000], vec![comm.rank() + 1; 100]);
        let computed = comm
            .scope(|calls| {
                calls.all_reduce(&mut x, ReduceOp::Sum);
                calls.all_reduce(&mut y, ReduceOp::Max).wait().unwrap();
                7
            })
            .unwrap();
        assert_eq!(computed, 7);
        assert!(x.iter().all(|&x| x == 2) && y.iter().all(|&y| y == 2));

        let mut x = vec![1_u32; 300_000];
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            comm.scope(|calls| {
                calls.all_reduce(&mut x, ReduceOp::Sum);
                panic!("the computation fails");
            })
        }));
        assert!(panicked.is_err());
        assert!(x.iter().all(|&x| x == 2), "the scope did not wait");
        let error = comm.scope(|calls| drop(calls.broadcast(&mut x, 9))).expect_err("no root 9");
        assert!(error.to_string().contains("root 9"), "{error}");
        comm.barrier().unwrap();
    });
}

#[test]
fn threads_share_a_communicator_and_use_several_at_once() {
    let config = config("", "");
    let id = rccl::UniqueId::create(&config).unwrap();
    on_ranks(2, &config.clone(), move |a| {
        let b = Communicator::builder().unwrap().config(config.clone()).connect(&id, a.rank(), 2).unwrap();
        std::thread::scope(|scope| {
            let (a, b) = (&a, &b);
            // Every thread makes the same call, so their order does not matter.
            for _ in 0..3 {
                scope.spawn(move || {
                    for _ in 0..100 {
                        let mut x = [1_u8; 100];
                        a.all_reduce(&mut x, ReduceOp::Sum).unwrap();
                        assert_eq!(x, [2; 100]);
                        assert_eq!(
                            a.start_all_reduce(vec![1_u8; 100], ReduceOp::Sum).wait().unwrap(),
                            [2; 100]
                        );
                    }
                });
            }
            scope.spawn(move || {
                for i in 0..300_usize {
                    let x = b.start_all_reduce(vec![1_u64; i * 97], ReduceOp::Sum);
                    let mut y = [3_u8];
                    b.all_reduce(&mut y, ReduceOp::Max).unwrap();
                    assert!(x.wait().unwrap().iter().all(|&x| x == 2));
                }
            });
        });
    });
}

#[test]
fn a_failure_reaches_all_works() {
    let texts = on_ranks(2, &config("", ""), |comm| {
        let works: Vec<_> = (0..5)
            .map(|i| {
                let len = if i == 2 && comm.rank() == 1 { 11 } else { 10 };
                comm.start_all_reduce(vec![1.0_f32; len], ReduceOp::Sum)
            })
            .collect();
        let results: Vec<_> = works.into_iter().map(Work::wait).collect();
        assert!(results[0].is_ok() && results[1].is_ok());
        for result in &results[2..] {
            let error = result.as_ref().expect_err("the lengths differ");
            assert!(matches!(error.failure(), Some(Failure::Mismatch { sequence: 3, .. })), "{error}");
        }
        results[2].as_ref().unwrap_err().to_string()
    });
    assert!(texts.iter().all(|text| text.contains("x10") && text.contains("x11")), "{texts:?}");
}
