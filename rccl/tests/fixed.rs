//! The fixed order: the same operands give the same bits whatever else changes, those of a plain loop in order of rank.

mod common;

use common::stream::Stream;
use common::{config, on_ranks, try_on_ranks};
use half::{bf16, f16};
use rccl::{Communicator, Config, Element, ReduceOp, Reproducible, group};

const RANKS: u32 = 5;
const OPERATORS: [ReduceOp; 3] = [ReduceOp::Sum, ReduceOp::Avg, ReduceOp::Prod];

/// Operand `i` of a rank: of all magnitudes, so that every other order of additions gives other bits.
fn operand(rank: u32, i: usize) -> f32 {
    let mut stream = Stream(u64::from(rank) * 1_000_003 + i as u64);
    let bits = stream.bits();
    let magnitude = 2.0_f32.powi((bits % 15) as i32 - 7);
    ((bits >> 40) as f32 / 16_777_216.0 - 0.5) * magnitude
}

/// A type whose operands are added up in f32 and rounded once.
trait Narrow: Element + PartialEq + std::fmt::Debug {
    fn narrow(x: f32) -> Self;
    fn widen(self) -> f32;
}

impl Narrow for f32 {
    fn narrow(x: f32) -> f32 {
        x
    }
    fn widen(self) -> f32 {
        self
    }
}

impl Narrow for f16 {
    fn narrow(x: f32) -> f16 {
        f16::from_f32(x)
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Narrow for bf16 {
    fn narrow(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// Elements `range` of the result, in order of rank.
fn right<T: Narrow>(range: std::ops::Range<usize>, op: ReduceOp) -> Vec<T> {
    let element = |i| {
        let operands = (0..RANKS).map(|rank| T::narrow(operand(rank, i)).widen());
        let reduced = operands.reduce(|a, b| if op == ReduceOp::Prod { a * b } else { a + b }).unwrap_or(0.0);
        T::narrow(if op == ReduceOp::Avg { reduced / RANKS as f32 } else { reduced })
    };
    range.map(element).collect()
}

fn operands<T: Narrow>(rank: u32, count: usize) -> Vec<T> {
    (0..count).map(|i| T::narrow(operand(rank, i))).collect()
}

/// The same elements by every call that reduces, in arrays of many lengths.
fn every_call<T: Narrow>(comm: &Communicator, context: &str) {
    let rank = comm.rank();
    for op in OPERATORS {
        for count in [1, 10, 333, 5_000, 60_000] {
            let what = format!("{} {op} x{count}, {context}, rank {rank}", T::TYPE);
            let mine = operands::<T>(rank, count);
            let expected = right::<T>(0..count, op);

            let mut x = mine.clone();
            comm.all_reduce(&mut x, op).unwrap();
            assert!(x == expected, "all_reduce in place, {what}");
            let (mut from, mut to) = (comm.alloc::<T>(count).unwrap(), comm.alloc::<T>(count).unwrap());
            from.copy_from_slice(&mine);
            comm.all_reduce_into(&from, &mut to, op).unwrap();
            assert!(*to == expected, "all_reduce of registered memory, {what}");

            let mut x = mine.clone();
            comm.reduce(&mut x, op, 3).unwrap();
            assert!(rank != 3 || x == expected, "reduce, {what}");

            let all = operands::<T>(rank, count * RANKS as usize);
            let mut x = vec![T::narrow(0.0); count];
            comm.reduce_scatter_into(&all, &mut x, op).unwrap();
            let first = rank as usize * count;
            assert!(x == right::<T>(first..first + count, op), "reduce_scatter, {what}");

            let (mut x, mut y) = (mine.clone(), mine.clone());
            group(|calls| {
                calls.all_reduce(comm, &mut x, op);
                calls.all_reduce(comm, &mut y, op);
            })
            .unwrap();
            assert!(x == expected && y == expected, "in a group, {what}");
            let x = comm.start_all_reduce(mine, op).wait().unwrap();
            assert!(x == expected, "not waited for at once, {what}");
        }
    }
}

fn fixed(transport: &str, algorithm: &str) -> Config {
    let mut config = config(transport, algorithm);
    config.reproducible = Reproducible::Fixed;
    config
}

fn one_result(ways: &[(&'static str, &'static str)]) {
    for &(transport, algorithm) in ways {
        on_ranks(RANKS, &fixed(transport, algorithm), move |comm| {
            let context = format!("{transport} {algorithm}");
            every_call::<f32>(&comm, &context);
            every_call::<f16>(&comm, &context);
            every_call::<bf16>(&comm, &context);
        });
    }
}

#[test]
fn nothing_but_the_operands_changes_the_bits() {
    one_result(&[("shm", ""), ("tcp", ""), ("shm", "direct"), ("tcp", "direct,reduce_gather")]);
}

#[test]
fn nor_does_rdma_over_verbs() {
    if common::devices::rdma() {
        one_result(&[("verbs", "")]);
    }
}

/// Who shares memory with whom, and where the ranks live.
#[test]
fn neither_do_hosts_and_the_placement_of_ranks() {
    for hosts in [[0, 0, 1, 1, 2], [0, 1, 0, 1, 0], [0, 1, 2, 3, 4], [1, 1, 0, 1, 1]] {
        let configs = hosts.map(|host| {
            let mut config = fixed("", "");
            config.host_id = Some(format!("host {host}"));
            config
        });
        common::on_ranks_with(&configs, move |comm| every_call::<f32>(&comm, &format!("hosts {hosts:?}")));
    }
}

/// Without it they may: else these tests would show nothing.
#[test]
fn other_orders_give_other_bits() {
    let differs = on_ranks(RANKS, &config("shm", "ring"), |comm| {
        let mut x = operands::<f32>(comm.rank(), 5_000);
        comm.all_reduce(&mut x, ReduceOp::Sum).unwrap();
        x != right::<f32>(0..5_000, ReduceOp::Sum)
    });
    assert_eq!(differs, [true; RANKS as usize]);
}

#[test]
fn an_algorithm_of_another_order_is_refused() {
    for result in try_on_ranks(2, &fixed("shm", "ring"), |comm| comm.map(|_| ())) {
        let error = result.expect_err("a ring reduces in another order").to_string();
        assert!(error.contains("RCCL_REPRODUCIBLE=fixed") && error.contains("direct"), "{error}");
    }
}
