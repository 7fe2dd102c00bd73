//! Every rank ends with the same bits, whatever the inputs: random floats, NaN, both zeros, denormals, infinities.

mod common;

use common::stream::Stream;
use common::{config, on_ranks};
use half::{bf16, f16};
use rccl::{Communicator, Element, F8E4M3, F8E5M2, ReduceOp};

const OPS: [ReduceOp; 5] = [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Min, ReduceOp::Max, ReduceOp::Avg];
const COUNT: usize = 2500;

/// A number that is often a special one.
fn odd_f32(stream: &mut Stream) -> f32 {
    let bits = stream.bits();
    match bits % 16 {
        0 => f32::NAN,
        1 => -f32::NAN,
        2 => 0.0,
        3 => -0.0,
        4 => f32::from_bits((bits >> 32) as u32 & 0x7f_ffff),
        5 => f32::INFINITY,
        6 => f32::from_bits((bits >> 32) as u32),
        _ => ((bits >> 40) as f32 / 65536.0) - 100.0,
    }
}

fn same_bits<T: Element>(comm: &Communicator, make: fn(&mut Stream) -> T) {
    for op in OPS {
        for count in [1, 7, COUNT, 20_000] {
            let mut stream = Stream(u64::from(comm.rank()) * 77 + op as u64);
            let mut x: Vec<T> = (0..count).map(|_| make(&mut stream)).collect();
            comm.all_reduce(&mut x, op).unwrap();
            // Rank 0's bytes to everybody: each must have them already.
            let mine: Vec<u8> = bytemuck::cast_slice(&x).to_vec();
            let mut theirs = mine.clone();
            comm.broadcast(&mut theirs, 0).unwrap();
            assert!(
                mine == theirs,
                "{} {op:?} x{count}: rank {} differs from rank 0",
                T::TYPE.name(),
                comm.rank()
            );
        }
    }
}

fn all_types(comm: &Communicator) {
    same_bits::<f32>(comm, odd_f32);
    same_bits::<f64>(comm, |s| f64::from(odd_f32(s)) * 1.000_000_1);
    same_bits::<f16>(comm, |s| f16::from_bits(s.bits() as u16));
    same_bits::<bf16>(comm, |s| bf16::from_bits(s.bits() as u16));
    same_bits::<F8E4M3>(comm, |s| F8E4M3(s.bits() as u8));
    same_bits::<F8E5M2>(comm, |s| F8E5M2(s.bits() as u8));
    same_bits::<i8>(comm, |s| s.bits() as i8);
    same_bits::<u64>(comm, Stream::bits);
}

#[test]
fn every_algorithm_gives_every_rank_the_same_bits() {
    for algorithm in
        ["ring", "tree", "doubling", "halving", "direct", "hierarchical", "hierarchical_halving", ""]
    {
        for n in [2, 3, 5] {
            on_ranks(n, &config("shm", algorithm), |comm| all_types(&comm));
        }
    }
}

#[test]
fn tcp_gives_every_rank_the_same_bits() {
    for algorithm in ["direct", "halving", ""] {
        on_ranks(3, &config("tcp", algorithm), |comm| all_types(&comm));
    }
}
