//! Messages between two ranks, alone and in groups.

mod common;

use common::{config, on_ranks, transports};
use rccl::{Call, Collective, Communicator, DataType, Error, Failure, ReduceOp, UniqueId, group};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn messages_arrive_in_order_and_whole() {
    for transport in transports() {
        on_ranks(3, &config(transport, ""), |comm| {
            for count in [0_usize, 1, 100, 5000, 1_000_000] {
                match comm.rank() {
                    0 => {
                        for i in 0..5_u32 {
                            comm.send(&vec![i; count], 1).unwrap();
                        }
                    }
                    1 => {
                        for i in 0..5_u32 {
                            let mut x = vec![77; count];
                            comm.recv(&mut x, 0).unwrap();
                            assert!(x.iter().all(|&x| x == i), "{count} elements, message {i}");
                        }
                    }
                    // Who is no part of it has nothing to do, and is not behind afterwards.
                    _ => {}
                }
                let mut x = [1_i32];
                comm.all_reduce(&mut x, ReduceOp::Sum).unwrap();
                assert_eq!(x, [3]);
            }
        });
    }
}

#[test]
fn a_ring_in_a_group_never_waits_for_itself() {
    for transport in transports() {
        for n in [1, 2, 3, 5] {
            on_ranks(n, &config(transport, ""), move |comm| {
                let (rank, n) = (comm.rank(), comm.size());
                for count in [0_usize, 1, 1000, 100_000, 3_000_000] {
                    let mine = vec![rank; count];
                    let mut theirs = vec![u32::MAX; count];
                    group(|calls| {
                        calls.send(&comm, &mine, (rank + 1) % n);
                        calls.recv(&comm, &mut theirs, (rank + n - 1) % n);
                    })
                    .unwrap();
                    assert!(theirs.iter().all(|&x| x == (rank + n - 1) % n), "{count} elements");
                }
            });
        }
    }
}

/// All_to_all as users of NCCL write it, with many messages on every edge, of several types, and to the own rank.
#[test]
fn many_messages_of_all_kinds_in_one_group() {
    on_ranks(4, &config("", ""), |comm| {
        let (rank, n) = (comm.rank(), comm.size());
        let len = |from: u32, to: u32, i: usize| (from as usize * 31 + to as usize * 7 + i * 13) % 300;
        let sent: Vec<Vec<f32>> =
            (0..n * 50).map(|i| vec![(rank * 1000 + i) as f32; len(rank, i % n, (i / n) as usize)]).collect();
        let mut received: Vec<Vec<f32>> =
            (0..n * 50).map(|i| vec![-1.0; len(i % n, rank, (i / n) as usize)]).collect();
        let (bytes, mut other_bytes) = ([rank as u8; 3], [0_u8; 3]);
        group(|calls| {
            for (i, (sent, received)) in sent.iter().zip(&mut received).enumerate() {
                calls.send(&comm, sent, i as u32 % n);
                calls.recv(&comm, received, i as u32 % n);
            }
            calls.send(&comm, &bytes, rank ^ 1);
            calls.recv(&comm, &mut other_bytes, rank ^ 1);
        })
        .unwrap();
        for (i, received) in received.iter().enumerate() {
            let from = i as u32 % n;
            let value = (from * 1000 + (i as u32 / n) * n + rank) as f32;
            assert!(
                received.iter().all(|&x| x == value),
                "message {i} from {from}: {received:?}, not {value}"
            );
        }
        assert_eq!(other_bytes, [(rank ^ 1) as u8; 3]);
    });
}

#[test]
fn collectives_and_messages_mix_in_a_group() {
    on_ranks(3, &config("", ""), |comm| {
        let (rank, n) = (comm.rank(), comm.size());
        let mut small: Vec<Vec<i64>> =
            (0..20).map(|i| vec![i + i64::from(rank); 1 + i as usize * 3]).collect();
        let mut large = vec![i64::from(rank); 100_000];
        let (mine, mut all) = (vec![rank; 5], vec![0; 15]);
        let (word, mut others) = ([rank], [77_u32]);
        // Where the messages stand among the collectives does not matter.
        group(|calls| {
            if rank == 0 {
                calls.send(&comm, &word, 1);
            }
            for x in &mut small {
                calls.all_reduce(&comm, x, ReduceOp::Sum);
            }
            calls.all_reduce(&comm, &mut large, ReduceOp::Max);
            if rank == 1 {
                calls.recv(&comm, &mut others, 0);
            }
            calls.all_gather_into(&comm, &mine, &mut all);
        })
        .unwrap();
        for (i, x) in small.iter().enumerate() {
            assert!(x.iter().all(|&x| x == i as i64 * i64::from(n) + 3), "call {i}: {x:?}");
        }
        assert!(large.iter().all(|&x| x == 2));
        assert_eq!(all, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
        assert_eq!(others, [if rank == 1 { 0 } else { 77 }]);
    });
}

/// Ranks add the communicators in opposite orders.
#[test]
fn a_group_on_several_communicators_is_one_submission() {
    let config = config("", "");
    let id = UniqueId::create(&config).unwrap();
    on_ranks(3, &config.clone(), move |a| {
        let b = Communicator::builder().unwrap().config(config.clone());
        let b = b.connect(&id, a.rank(), a.size()).unwrap();
        for i in 0..20 {
            let count = [1, 1000, 200_000][i % 3];
            let (mut x, mut y) = (vec![1_u64; count], vec![2_u64; count]);
            group(|calls| {
                if a.rank() % 2 == 1 {
                    calls.all_reduce(&b, &mut y, ReduceOp::Sum);
                    calls.all_reduce(&a, &mut x, ReduceOp::Sum);
                } else {
                    calls.all_reduce(&a, &mut x, ReduceOp::Sum);
                    calls.all_reduce(&b, &mut y, ReduceOp::Sum);
                }
            })
            .unwrap();
            assert!(x.iter().all(|&x| x == 3) && y.iter().all(|&y| y == 6), "call {i}");
        }
    });
}

#[test]
fn wrong_messages_are_refused_before_anything_is_sent() {
    on_ranks(2, &config("shm", ""), |comm| {
        let rank = comm.rank();
        let refused = |result: rccl::Result<()>, word: &str| {
            let error = result.expect_err("refused");
            assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
            assert!(error.to_string().contains(word), "{error} does not say {word}");
        };
        let mut x = [1_u8];
        refused(comm.send(&x, 2), "rank 2 in a communicator of 2");
        refused(comm.recv(&mut x, 7), "rank 7");
        refused(comm.send(&x, rank), "itself");
        refused(comm.recv(&mut x, rank), "itself");
        refused(group(|calls| calls.send(&comm, &[1_u8], rank)), "does not receive");
        refused(group(|calls| calls.recv(&comm, &mut x, rank)), "does not send");
        let (two, mut three) = ([0_u8; 2], [0_u8; 3]);
        refused(
            group(|calls| {
                calls.send(&comm, &two, rank);
                calls.recv(&comm, &mut three, rank);
            }),
            "x3",
        );
        // One wrong call, and none of the group is made.
        refused(
            group(|calls| {
                calls.all_reduce(&comm, &mut x, ReduceOp::Sum);
                calls.broadcast(&comm, &mut three, 5);
            }),
            "root 5",
        );
        comm.barrier().unwrap();
    });
}

#[test]
fn what_has_no_program_explains_nothing() {
    on_ranks(1, &config("", ""), |comm| {
        let call = |collective, root| Call { collective, dtype: DataType::F32, op: None, root, count: 3 };
        for call in [
            call(Collective::Send, Some(0)),
            call(Collective::Fused, Some(2)),
            call(Collective::Broadcast, Some(9)),
        ] {
            assert_eq!((comm.algorithm(&call), comm.explain(&call)), ("none", String::new()), "{call}");
        }
        assert!(comm.explain(&call(Collective::AllGather, None)).contains("in -> out"));
    });
}

#[test]
fn a_message_of_another_length_or_type_names_both() {
    for transport in transports() {
        for large in [1, 100_000_usize] {
            let errors = on_ranks(3, &config(transport, ""), move |comm| {
                match comm.rank() {
                    // A short message may be gone before its receiver looks at it.
                    0 => drop(comm.send(&vec![1.0_f32; 10 * large], 1)),
                    1 => drop(comm.recv(&mut vec![0.0_f32; 11 * large], 0).expect_err("the lengths differ")),
                    _ => {}
                }
                comm.barrier()
            });
            for error in errors {
                let error = error.expect_err("the lengths differ");
                assert!(matches!(error.failure(), Some(Failure::Mismatch { .. })), "{error}");
                let text = error.to_string();
                let (sent, received) = (format!("f32 x{} ", 10 * large), format!("f32 x{} ", 11 * large));
                assert!(text.contains(&sent) && text.contains(&received), "{text}");
                assert!(text.contains("send") && text.contains("recv"), "{text}");
            }
        }
    }
}

#[test]
fn a_message_that_nobody_sends_times_out_and_says_whom_it_waited_for() {
    let mut config = config("", "");
    config.timeout = Duration::from_millis(700);
    let over = Arc::new(AtomicBool::new(false));
    let errors = on_ranks(3, &config, move |comm| match comm.rank() {
        0 => {
            let result = comm.recv(&mut [0_u8], 2);
            over.store(true, Ordering::Release);
            result
        }
        _ => {
            let end = Instant::now() + Duration::from_secs(25);
            while !over.load(Ordering::Acquire) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            comm.barrier()
        }
    });
    for error in errors {
        let text = error.expect_err("nobody sends").to_string();
        assert!(text.contains("rank 2") && text.contains("timed out"), "{text}");
    }
}

/// Whoever has sent what it had to send and left is not who is missing, however late somebody else is, and wherever in the
/// group its message stands.
#[test]
fn one_who_has_sent_and_left_is_not_missed() {
    let jobs: Vec<_> = transports()
        .into_iter()
        .flat_map(|transport| [1, 100_000].map(|late| (transport, late)))
        .flat_map(|(transport, late)| [1, 300].map(|times| (transport, late, times)))
        .flat_map(|(transport, late, times)| [[1, 2], [2, 1]].map(|order| (transport, late, times, order)))
        .map(|(transport, late, times, order)| {
            std::thread::spawn(move || sent_and_left(transport, late, times, order))
        })
        .collect();
    for job in jobs {
        job.join().unwrap();
    }
}

/// Rank 0 receives a message from rank 1, which leaves at once, and `times` messages of `late` elements from rank 2, which
/// sends them only after rank 0 has asked twice where the others are.
fn sent_and_left(transport: &'static str, late: usize, times: usize, order: [u32; 2]) {
    on_ranks(3, &config(transport, ""), move |comm| match comm.rank() {
        0 => {
            let mut short = [0_u8];
            let mut long = vec![0_u32; late * times];
            group(|calls| {
                let (mut short, mut long) = (Some(&mut short), Some(&mut long));
                for peer in order {
                    if peer == 1 {
                        calls.recv(&comm, short.take().unwrap(), 1);
                    } else {
                        long.take().unwrap().chunks_mut(late).for_each(|part| {
                            calls.recv(&comm, part, 2);
                        });
                    }
                }
            })
            .unwrap_or_else(|error| panic!("{transport} {late} {times} {order:?}: {error}"));
            assert!(short == [1] && long.iter().all(|&x| x == 2));
        }
        1 => comm.send(&[1_u8], 0).unwrap(),
        _ => {
            std::thread::sleep(Duration::from_millis(4500));
            let long = vec![2_u32; late];
            for _ in 0..times {
                comm.send(&long, 0).unwrap();
            }
        }
    });
}

/// A link tells of it only over TCP, and without a link nothing does.
#[test]
fn a_message_from_one_who_has_left_is_not_waited_for() {
    for (waits, gone) in [(0, 1), (2, 0), (2, 1)] {
        for transport in transports() {
            for (split, met) in [(false, false), (true, false), (false, true)] {
                left_alone(transport, waits, gone, split, met);
            }
        }
    }
}

fn left_alone(transport: &str, waits: u32, gone: u32, split: bool, met: bool) {
    let results = on_ranks(3, &config(transport, ""), move |comm| {
        let part = if split { comm.split(Some(0), -(comm.rank() as i32)) } else { Ok(None) };
        let on = part?.unwrap_or_else(|| comm.clone());
        drop(comm);
        if met {
            for to in 0..3 {
                on.broadcast(&mut [0_u8], to)?;
            }
            let pair = [waits, gone];
            if let Some(at) = pair.iter().position(|&rank| rank == on.rank()) {
                let other = pair[1 - at];
                group(|calls| {
                    calls.send(&on, &[1_u8], other);
                })?;
                on.recv(&mut [0_u8], other)?;
            }
        }
        if on.rank() != waits {
            return Ok(());
        }
        let began = Instant::now();
        let result = on.recv(&mut [0_u8], gone);
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        result
    });
    let case = format!("rank {waits} waits for {gone}, {transport}, split: {split}, met: {met}");
    for (rank, result) in (0..).zip(results) {
        let rank = if split { 2 - rank } else { rank };
        match result {
            Ok(()) => assert_ne!(rank, waits, "{case}"),
            Err(error) => match error.failure() {
                Some(Failure::PeerLost { member, .. }) => {
                    assert_eq!((rank, member.rank), (waits, gone), "{case}: {error}");
                }
                _ => panic!("{case}: {error}"),
            },
        }
    }
}
