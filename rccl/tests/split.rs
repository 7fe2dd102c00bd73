//! Communicators of some ranks of another.

mod common;

use common::{config, on_ranks, transports};
use rccl::{Communicator, Failure, ReduceOp, group};
use std::time::{Duration, Instant};

fn sum(comm: &Communicator, x: u64) -> u64 {
    let mut x = [x];
    comm.all_reduce(&mut x, ReduceOp::Sum).unwrap();
    x[0]
}

#[test]
fn colors_and_keys_part_and_order_the_ranks() {
    for transport in transports() {
        on_ranks(5, &config(transport, ""), |world| {
            let rank = world.rank();
            // Odd ranks backwards, even ones by one key, so in their order.
            let key = if rank % 2 == 1 { -(rank as i32) } else { 7 };
            let part = world.split(Some(rank % 2), key).unwrap().unwrap();
            let right = [(0, 3), (1, 2), (1, 3), (0, 2), (2, 3)][rank as usize];
            assert_eq!((part.rank(), part.size()), right, "rank {rank}");
            assert_eq!(sum(&part, u64::from(rank)), if rank % 2 == 1 { 4 } else { 6 });
            let mut first = [rank];
            part.broadcast(&mut first, 0).unwrap();
            assert_eq!(first, [if rank % 2 == 1 { 3 } else { 0 }]);
            assert_eq!(sum(&world, 1), 5);

            // A rank may stay out, and a part be parted.
            let none = world.split((rank != 2).then_some(9), 0).unwrap();
            assert_eq!(none.is_none(), rank == 2);
            if let Some(four) = none {
                let pair = four.split(Some(four.rank() / 2), 0).unwrap().unwrap();
                assert_eq!((pair.size(), sum(&pair, 1)), (2, 2));
            }
            assert_eq!(sum(&world, 2), 10);
        });
    }
}

#[test]
fn calls_on_parent_and_parts_overlap_in_any_order() {
    on_ranks(4, &config("", ""), |world| {
        let rank = world.rank();
        let pair = world.split(Some(rank / 2), 0).unwrap().unwrap();
        let copy = world.duplicate().unwrap();
        for round in 0..20_usize {
            let len = [3, 5_000, 300_000][round % 3];
            let a = world.start_all_reduce(vec![1_u32; len], ReduceOp::Sum);
            let b = pair.start_all_reduce(vec![1_u32; len], ReduceOp::Sum);
            let c = copy.start_all_reduce(vec![1_u32; len], ReduceOp::Sum);
            // Every rank waits in another order.
            let mut works = [(a, 4), (b, 2), (c, 4)];
            works.rotate_left((rank as usize + round) % 3);
            for (work, sum) in works {
                assert!(work.wait().unwrap().iter().all(|&x| x == sum));
            }
            let (mut x, mut y) = ([1_u32], [1_u32]);
            let (first, second) = if rank % 2 == 0 { (&world, &copy) } else { (&copy, &world) };
            group(|calls| {
                calls.all_reduce(first, &mut x, ReduceOp::Sum);
                calls.all_reduce(second, &mut y, ReduceOp::Sum);
            })
            .unwrap();
            assert_eq!((x, y), ([4], [4]));
        }
    });
}

#[test]
fn a_mismatch_names_the_ranks_of_the_part_and_leaves_the_others_alone() {
    let texts = on_ranks(4, &config("", ""), |world| {
        let rank = world.rank();
        // Ranks 3, 2 of the world are 0, 1 of their part.
        let pair = world.split(Some(rank / 2), -(rank as i32)).unwrap().unwrap();
        if rank < 2 {
            assert_eq!(sum(&pair, 1), 2);
        }
        let text = if rank >= 2 {
            let len = if rank == 3 { 5 } else { 6 };
            let error = pair.all_reduce(&mut vec![0.0_f32; len], ReduceOp::Sum).expect_err("they differ");
            assert!(matches!(error.failure(), Some(Failure::Mismatch { .. })), "{error}");
            error.to_string()
        } else {
            String::new()
        };
        assert_eq!(sum(&world, 1), 4);
        text
    });
    for text in &texts[2..] {
        assert!(
            text.contains("rank 0 all_reduce f32 x5") && text.contains("rank 1 all_reduce f32 x6"),
            "{text}"
        );
    }
}

#[test]
fn shrink_leaves_ranks_out_without_asking_them_also_after_a_failure() {
    on_ranks(4, &config("", ""), |world| {
        let rank = world.rank();
        if rank == 2 {
            assert!(world.shrink(&[2]).is_err() && world.shrink(&[4]).is_err());
            world.abort("rank 2 gives up");
            return;
        }
        let error = world.barrier().expect_err("aborted");
        assert!(error.to_string().contains("gives up"), "{error}");
        let three = world.shrink(&[2]).unwrap();
        assert_eq!((three.size(), three.rank()), (3, if rank == 3 { 2 } else { rank }));
        assert_eq!(sum(&three, 1), 3);
        let two = three.shrink(&[0]);
        if rank != 0 {
            assert_eq!(sum(&two.unwrap(), u64::from(rank)), 4);
        }
    });
}

/// Ranks that are left out of one stay in the next, and of two with the same ranks the first is every rank's first.
#[test]
fn one_communicator_may_be_shrunk_several_times() {
    on_ranks(4, &config("", ""), |world| {
        let rank = world.rank();
        let without = |excluded: &[u32]| (!excluded.contains(&rank)).then(|| world.shrink(excluded).unwrap());
        let parts =
            [without(&[3]), without(&[0, 1]), without(&[0]), without(&[1, 0]), without(&[]), without(&[3])];
        for (part, sum_of_ranks) in parts.iter().zip([3, 5, 6, 5, 6, 3]) {
            if let Some(part) = part {
                assert_eq!(sum(part, u64::from(rank)), sum_of_ranks);
            }
        }
    });
}

fn entries(of: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{of}")).map_or(0, Iterator::count)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// With real calls on each, in a process of its own because it counts what the process has.
#[test]
fn a_thousand_splits_leak_nothing() {
    if std::env::var_os("TEST_ALONE").is_none() {
        let program = std::env::current_exe().expect("this program");
        let output = std::process::Command::new(program)
            .args(["--exact", "a_thousand_splits_leak_nothing", "--nocapture"])
            .env("TEST_ALONE", "1")
            .output()
            .expect("starting a process");
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        return;
    }
    for transport in ["shm", "tcp"] {
        on_ranks(3, &config(transport, ""), move |world| {
            let split = |i: u64| {
                let part =
                    world.split(Some(u32::from(i % 5 == u64::from(world.rank()))), 0).unwrap().unwrap();
                assert_eq!(sum(&part, 1), u64::from(part.size()));
                drop(part.start_broadcast(vec![1_u8; 3], 0));
            };
            // One rank counts, while the others wait for it, until what ends in the background has ended.
            let count = |most: (usize, usize)| {
                world.barrier().unwrap();
                let deadline = Instant::now() + Duration::from_secs(10);
                let mut counted = (usize::MAX, usize::MAX);
                while world.rank() == 0
                    && (counted.0 > most.0 || counted.1 > most.1)
                    && Instant::now() < deadline
                {
                    std::thread::sleep(Duration::from_millis(300));
                    counted = (entries("fd"), entries("task"));
                }
                world.barrier().unwrap();
                (counted.0, counted.1, resident_kib())
            };
            (0..100).for_each(split);
            let before = count((usize::MAX - 1, usize::MAX - 1));
            (0..1000).for_each(split);
            let after = count((before.0, before.1));
            if world.rank() == 0 {
                eprintln!("{transport}: descriptors, threads, KiB: {before:?}, then {after:?}");
                assert!(after.0 <= before.0 && after.1 <= before.1, "descriptors and threads");
                assert!(after.2 < before.2 + 4096, "{} KiB, then {}", before.2, after.2);
            }
        });
    }
}
