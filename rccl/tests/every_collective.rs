//! Every collective gives every rank the right elements: each algorithm, transport, root and kind of memory, in place and
//! not, with equal and with unequal blocks. What is right is said by plain loops over all ranks' inputs.

mod common;

use common::{config, on_ranks, transports};
use rccl::{Communicator, Op, ReduceOp};

const COUNTS: &[usize] = &[0, 1, 2, 7, 64, 997, 5000, 40_001];

/// Element `i` of what rank `rank` passes in.
fn value(rank: u32, i: usize) -> i64 {
    i64::from(rank + 1) * 1_000_003 + (i as i64 * 7919) % 10_007
}

fn values(rank: u32, count: usize) -> Vec<i64> {
    (0..count).map(|i| value(rank, i)).collect()
}

fn sums(ranks: u32, range: std::ops::Range<usize>) -> Vec<i64> {
    range.map(|i| (0..ranks).map(|rank| value(rank, i)).sum()).collect()
}

/// An array whose block `rank` is what `block` says, and whose other blocks are -1.
fn around(block: &[i64], rank: u32, ranks: u32) -> Vec<i64> {
    let mut all = vec![-1; block.len() * ranks as usize];
    all[rank as usize * block.len()..][..block.len()].copy_from_slice(block);
    all
}

fn own(all: &[i64], rank: u32, count: usize) -> &[i64] {
    &all[rank as usize * count..][..count]
}

fn reduce_everything(comm: &Communicator) {
    let (rank, ranks) = (comm.rank(), comm.size());
    for &count in COUNTS {
        let expected = sums(ranks, 0..count);
        for root in [0, ranks - 1, ranks / 2] {
            let mut x = values(rank, count);
            comm.reduce(&mut x, ReduceOp::Sum, root).unwrap();
            let right = if rank == root { expected.clone() } else { values(rank, count) };
            assert!(x == right, "in place, {count} elements to {root}, rank {rank}");

            let mut out = if rank == root { vec![-1; count] } else { Vec::new() };
            comm.reduce_into(&values(rank, count), &mut out, ReduceOp::Sum, root).unwrap();
            assert!(rank != root || out == expected, "{count} elements to {root}, rank {rank}");

            let mut registered = comm.alloc::<i64>(count).unwrap();
            registered.copy_from_slice(&values(rank, count));
            comm.reduce(&mut registered, ReduceOp::Sum, root).unwrap();
            assert!(*registered == right, "registered, {count} elements to {root}, rank {rank}");
        }
    }
}

fn reduce_scatter_everything(comm: &Communicator) {
    let (rank, ranks) = (comm.rank(), comm.size());
    for &count in COUNTS {
        let all = count * ranks as usize;
        let first = rank as usize * count;
        let expected = sums(ranks, first..first + count);

        let mut out = vec![-1; count];
        comm.reduce_scatter_into(&values(rank, all), &mut out, ReduceOp::Sum).unwrap();
        assert!(out == expected, "{count} elements, rank {rank}");

        let mut x = values(rank, all);
        comm.reduce_scatter(&mut x, ReduceOp::Sum).unwrap();
        let mut right = values(rank, all);
        right[first..first + count].copy_from_slice(&expected);
        assert!(x == right, "in place, {count} elements, rank {rank}");

        let (mut x, mut out) = (comm.alloc::<i64>(all).unwrap(), comm.alloc::<i64>(count).unwrap());
        x.copy_from_slice(&values(rank, all));
        comm.reduce_scatter_into(&x, &mut out, ReduceOp::Sum).unwrap();
        assert!(*out == expected && *x == values(rank, all), "registered, {count} elements, rank {rank}");

        let counts: Vec<usize> = (0..ranks as usize).map(|r| (count * (r % 3)) / 2).collect();
        let first: usize = counts[..rank as usize].iter().sum();
        let mut out = vec![-1; counts[rank as usize]];
        let x = values(rank, counts.iter().sum());
        comm.reduce_scatter_v_into(&x, &mut out, &counts, ReduceOp::Sum).unwrap();
        assert!(out == sums(ranks, first..first + out.len()), "counts {counts:?}, rank {rank}");
    }
}

fn all_gather_everything(comm: &Communicator) {
    let (rank, ranks) = (comm.rank(), comm.size());
    for &count in COUNTS {
        let expected: Vec<i64> = (0..ranks).flat_map(|rank| values(rank, count)).collect();

        let mut out = vec![-1; expected.len()];
        comm.all_gather_into(&values(rank, count), &mut out).unwrap();
        assert!(out == expected, "{count} elements, rank {rank}");

        let mut x = around(&values(rank, count), rank, ranks);
        comm.all_gather(&mut x).unwrap();
        assert!(x == expected, "in place, {count} elements, rank {rank}");

        let mut registered = comm.alloc::<i64>(expected.len()).unwrap();
        registered.copy_from_slice(&around(&values(rank, count), rank, ranks));
        comm.all_gather(&mut registered).unwrap();
        assert!(*registered == expected, "registered, {count} elements, rank {rank}");

        let counts: Vec<usize> = (0..ranks as usize).map(|r| (count * ((r + 1) % 3)) / 2).collect();
        let expected: Vec<i64> = (0..ranks).flat_map(|rank| values(rank, counts[rank as usize])).collect();
        let mut out = vec![-1; expected.len()];
        comm.all_gather_v_into(&values(rank, counts[rank as usize]), &mut out, &counts).unwrap();
        assert!(out == expected, "counts {counts:?}, rank {rank}");
    }
}

fn gather_and_scatter_everything(comm: &Communicator) {
    let (rank, ranks) = (comm.rank(), comm.size());
    for &count in COUNTS {
        for root in [0, ranks - 1, ranks / 2] {
            let gathered: Vec<i64> = (0..ranks).flat_map(|rank| values(rank, count)).collect();
            let what = format!("{count} elements, root {root}, rank {rank}");
            let mut out = if rank == root { vec![-1; gathered.len()] } else { Vec::new() };
            comm.gather_into(&values(rank, count), &mut out, root).unwrap();
            assert!(rank != root || out == gathered, "gather, {what}");
            let before = around(&values(rank, count), rank, ranks);
            let mut x = before.clone();
            comm.gather(&mut x, root).unwrap();
            assert!(x == if rank == root { gathered } else { before }, "gather in place, {what}");

            let dealt = values(root, count * ranks as usize);
            let mut out = vec![-1; count];
            comm.scatter_into(if rank == root { &dealt } else { &[] }, &mut out, root).unwrap();
            assert!(out == own(&dealt, rank, count), "scatter, {what}");
            let mut x = if rank == root { dealt.clone() } else { vec![-1; dealt.len()] };
            comm.scatter(&mut x, root).unwrap();
            let right =
                if rank == root { dealt.clone() } else { around(own(&dealt, rank, count), rank, ranks) };
            assert!(x == right, "scatter in place, {what}");

            let counts: Vec<usize> = (0..ranks as usize).map(|r| (count * ((r + 2) % 3)) / 2).collect();
            let mine = counts[rank as usize];
            let of_root = |counts: &[usize]| if rank == root { counts.to_vec() } else { Vec::new() };
            let all: usize = counts.iter().sum();
            let gathered: Vec<i64> =
                (0..ranks).flat_map(|rank| values(rank, counts[rank as usize])).collect();
            let mut out = if rank == root { vec![-1; all] } else { Vec::new() };
            comm.gather_v_into(&values(rank, mine), &mut out, &of_root(&counts), root).unwrap();
            assert!(rank != root || out == gathered, "gather_v of {counts:?}, {what}");
            let dealt = if rank == root { values(root, all) } else { Vec::new() };
            let mut out = vec![-1; mine];
            comm.scatter_v_into(&dealt, &of_root(&counts), &mut out, root).unwrap();
            let first: usize = counts[..rank as usize].iter().sum();
            assert!(out == values(root, all)[first..first + mine], "scatter_v of {counts:?}, {what}");
        }
    }
}

fn all_to_all_everything(comm: &Communicator) {
    let (rank, ranks) = (comm.rank(), comm.size());
    for &count in COUNTS {
        let all = count * ranks as usize;
        let expected: Vec<i64> =
            (0..ranks).flat_map(|from| own(&values(from, all), rank, count).to_vec()).collect();
        let mut out = vec![-1; all];
        comm.all_to_all_into(&values(rank, all), &mut out).unwrap();
        assert!(out == expected, "{count} elements, rank {rank}");
        let (mut x, mut out) = (comm.alloc::<i64>(all).unwrap(), comm.alloc::<i64>(all).unwrap());
        x.copy_from_slice(&values(rank, all));
        comm.all_to_all_into(&x, &mut out).unwrap();
        assert!(*out == expected, "registered, {count} elements, rank {rank}");

        let len = |from: u32, to: u32| count * ((from * 2 + to) as usize % 4) / 3;
        let block = |from: u32, to: u32| -> Vec<i64> {
            (0..len(from, to)).map(|i| value(from, i + to as usize)).collect()
        };
        let sends: Vec<usize> = (0..ranks).map(|to| len(rank, to)).collect();
        let receives: Vec<usize> = (0..ranks).map(|from| len(from, rank)).collect();
        let x: Vec<i64> = (0..ranks).flat_map(|to| block(rank, to)).collect();
        let expected: Vec<i64> = (0..ranks).flat_map(|from| block(from, rank)).collect();
        let mut out = vec![-1; expected.len()];
        comm.all_to_all_v_into(&x, &sends, &mut out, &receives).unwrap();
        assert!(out == expected, "{sends:?} to, {receives:?} from, rank {rank}");
    }
}

fn with(algorithms: &[&'static str], body: fn(&Communicator)) {
    for transport in transports() {
        // Devices in software are slow.
        let sizes: &[u32] = if transport == "verbs" { &[2, 4] } else { &[1, 2, 3, 5] };
        for &algorithm in algorithms {
            for &n in sizes {
                eprintln!("{transport} {algorithm} on {n} ranks");
                on_ranks(n, &config(transport, algorithm), move |comm| {
                    body(&comm);
                    comm.finish().unwrap();
                });
            }
        }
    }
}

#[test]
fn reduce() {
    with(&["direct", "binomial", "chain", "reduce_gather", ""], reduce_everything);
}

#[test]
fn reduce_scatter() {
    with(&["ring", "bruck", "direct", ""], reduce_scatter_everything);
}

#[test]
fn all_gather() {
    with(&["ring", "bruck", "direct", ""], all_gather_everything);
}

#[test]
fn gather_and_scatter() {
    with(&["direct", "binomial", "pairwise", ""], gather_and_scatter_everything);
}

#[test]
fn all_to_all() {
    with(&["direct", "bruck", "pairwise", ""], all_to_all_everything);
}

#[test]
fn every_rank_multiplies_by_its_own_scalar_first() {
    for transport in transports() {
        on_ranks(3, &config(transport, ""), |comm| {
            let (rank, ranks) = (comm.rank(), comm.size());
            for count in [1_usize, 100, 70_000] {
                let by = |rank: u32| f64::from(rank) + 0.5;
                let input: Vec<f64> = values(rank, count * 3).iter().map(|&x| x as f64).collect();
                let right = |i: usize| -> f64 { (0..ranks).map(|r| value(r, i) as f64 * by(r)).sum() };
                let op = Op::pre_mul_sum(by(rank));

                let mut x = input.clone();
                comm.all_reduce(&mut x, op).unwrap();
                assert!(x.iter().enumerate().all(|(i, &x)| x == right(i)), "{count} elements");
                let mut out = vec![0.0; count];
                comm.reduce_scatter_into(&input, &mut out, op).unwrap();
                assert!(out.iter().enumerate().all(|(i, &x)| x == right(rank as usize * count + i)));
                let mut x = input.clone();
                comm.reduce(&mut x, op, 1).unwrap();
                assert!(x.iter().enumerate().all(|(i, &y)| y == if rank == 1 { right(i) } else { input[i] }));
            }
        });
    }
}

#[test]
fn bits_of_integers_are_combined() {
    on_ranks(3, &config("shm", ""), |comm| {
        let mine = [0b1100_u32 | comm.rank(), u32::MAX << comm.rank()];
        let all = |op| {
            let mut x = mine;
            comm.all_reduce(&mut x, op).unwrap();
            x
        };
        assert_eq!(all(ReduceOp::BitAnd), [0b1100, u32::MAX << 2]);
        assert_eq!(all(ReduceOp::BitOr), [0b1111, u32::MAX]);
        let xor = (0..3).fold(0, |x, rank| x ^ (u32::MAX << rank));
        assert_eq!(all(ReduceOp::BitXor), [0b1100 ^ 0b0011, xor]);
    });
}

/// As one rank of a job that a script started on several hosts, with `TEST_LAUNCHED` set.
#[test]
fn rank_of_a_launcher() {
    if std::env::var_os("TEST_LAUNCHED").is_none() {
        return;
    }
    let comm = Communicator::from_env().expect("joining");
    reduce_everything(&comm);
    reduce_scatter_everything(&comm);
    all_gather_everything(&comm);
    gather_and_scatter_everything(&comm);
    all_to_all_everything(&comm);
    for (peer, transport, reason) in comm.transports() {
        println!("rank {} reaches {peer} by {transport}: {reason}", comm.rank());
    }
    comm.finish().expect("leaving");
}
