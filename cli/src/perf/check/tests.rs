//! The data is right if no order of reduction, with the rounding of every hop, gives other bits than expected.

use super::*;

/// One hop: combines two values as the library's kernels do, written once more and slowly.
trait Hop: Sample + std::fmt::Debug {
    fn hop(op: ReduceOp, a: Self, b: Self) -> Self;
    fn divide(self, ranks: u32) -> Self;
}

macro_rules! integer_hops {
    ($($integer:ty),*) => {$(
        impl Hop for $integer {
            fn hop(op: ReduceOp, a: Self, b: Self) -> Self {
                match op {
                    ReduceOp::Prod => a.wrapping_mul(b),
                    ReduceOp::Max => if a > b { a } else { b },
                    ReduceOp::Min => if a < b { a } else { b },
                    ReduceOp::BitAnd => a & b,
                    ReduceOp::BitOr => a | b,
                    ReduceOp::BitXor => a ^ b,
                    _ => a.wrapping_add(b),
                }
            }
            fn divide(self, ranks: u32) -> Self {
                (self as i128 / ranks as i128) as $integer
            }
        }
    )*};
}
integer_hops!(i8, u8, i32, u32, i64, u64);

macro_rules! float_hops {
    ($($float:ty: $in:ty, $narrow:expr, $widen:expr;)*) => {$(
        impl Hop for $float {
            fn hop(op: ReduceOp, a: Self, b: Self) -> Self {
                let (widen, narrow): (fn($float) -> $in, fn($in) -> $float) = ($widen, $narrow);
                let (a, b) = (widen(a), widen(b));
                let (low, high) = if a.total_cmp(&b).is_lt() { (a, b) } else { (b, a) };
                narrow(match op {
                    ReduceOp::Prod => a * b,
                    ReduceOp::Max => high,
                    ReduceOp::Min => low,
                    _ => a + b,
                })
            }
            fn divide(self, ranks: u32) -> Self {
                let (widen, narrow): (fn($float) -> $in, fn($in) -> $float) = ($widen, $narrow);
                narrow(widen(self) / ranks as $in)
            }
        }
    )*};
}
float_hops! {
    f64: f64, |value| value, |value| value;
    f32: f32, |value| value, |value| value;
    f16: f32, f16::from_f32, f16::to_f32;
    bf16: f32, bf16::from_f32, bf16::to_f32;
    F8E4M3: f32, F8E4M3::from_f32, F8E4M3::to_f32;
    F8E5M2: f32, F8E5M2::from_f32, F8E5M2::to_f32;
}

/// In the given order, one after the other.
fn along<T: Hop>(op: ReduceOp, operands: &[T], order: &[usize]) -> T {
    order[1..].iter().fold(operands[order[0]], |sum, &rank| T::hop(op, sum, operands[rank]))
}

/// Halves first.
fn by_halves<T: Hop>(op: ReduceOp, operands: &[T]) -> T {
    if let [one] = operands {
        return *one;
    }
    let (low, high) = operands.split_at(operands.len().div_ceil(2));
    T::hop(op, by_halves(op, low), by_halves(op, high))
}

fn check_type<T: Hop>() {
    const ELEMENTS: usize = 24;
    for ranks in (1..=64).chain([100, 127, 300, 1000]) {
        let up: Vec<usize> = (0..ranks as usize).collect();
        let down: Vec<usize> = up.iter().rev().copied().collect();
        let mut mixed = up.clone();
        mixed.sort_by_key(|&rank| mix(rank as u64));
        for op in ReduceOp::ALL.into_iter().filter(|op| op.suits(T::TYPE)) {
            let data = Data { seed: u64::from(ranks), ranks, op: Some(op) };
            let inputs: Vec<Vec<T>> = (0..ranks).map(|rank| data.input(rank, ELEMENTS)).collect();
            let expected = data.reduced::<T>(ELEMENTS);
            for (index, expected) in expected.iter().enumerate() {
                let operands: Vec<T> = inputs.iter().map(|input| input[index]).collect();
                let results = [
                    along(op, &operands, &up),
                    along(op, &operands, &down),
                    along(op, &operands, &mixed),
                    by_halves(op, &operands),
                ];
                for mut result in results {
                    if op == ReduceOp::Avg {
                        result = result.divide(ranks);
                    }
                    assert!(
                        bytemuck::bytes_of(&result) == bytemuck::bytes_of(expected),
                        "{} {op}, {ranks} ranks, element {index}: {result:?} is not {expected:?}",
                        T::TYPE
                    );
                }
            }
        }
    }
}

/// Whoever is left out is missed in some element, and whoever is taken twice is noticed in a sum.
fn check_that_ranks_count<T: Hop>() {
    const ELEMENTS: usize = 2000;
    for ranks in [2u32, 7, 16] {
        for op in ReduceOp::ALL.into_iter().filter(|op| op.suits(T::TYPE)) {
            let data = Data { seed: 1, ranks, op: Some(op) };
            let inputs: Vec<Vec<T>> = (0..ranks).map(|rank| data.input(rank, ELEMENTS)).collect();
            let expected = data.reduced::<T>(ELEMENTS);
            for missing in 0..ranks as usize {
                let others: Vec<usize> = (0..ranks as usize).filter(|&rank| rank != missing).collect();
                let results: Vec<T> = (0..ELEMENTS)
                    .map(|index| {
                        let operands: Vec<T> = inputs.iter().map(|input| input[index]).collect();
                        let result = along(op, &operands, &others);
                        if op == ReduceOp::Avg { result.divide(ranks) } else { result }
                    })
                    .collect();
                assert!(
                    bytemuck::cast_slice::<T, u8>(&results) != bytemuck::cast_slice::<T, u8>(&expected),
                    "{} {op}: rank {missing} of {ranks}",
                    T::TYPE
                );
            }
        }
    }
}

macro_rules! each_type {
    ($($name:ident $type:ty),* $(,)?) => {$(
        #[test]
        fn $name() {
            check_type::<$type>();
            check_that_ranks_count::<$type>();
        }
    )*};
}
each_type! {
    any_order_is_exact_in_i8 i8,
    any_order_is_exact_in_u8 u8,
    any_order_is_exact_in_i32 i32,
    any_order_is_exact_in_u32 u32,
    any_order_is_exact_in_i64 i64,
    any_order_is_exact_in_u64 u64,
    any_order_is_exact_in_f16 f16,
    any_order_is_exact_in_bf16 bf16,
    any_order_is_exact_in_f32 f32,
    any_order_is_exact_in_f64 f64,
    any_order_is_exact_in_f8e4m3 F8E4M3,
    any_order_is_exact_in_f8e5m2 F8E5M2,
}

#[test]
fn data_differs_by_seed_rank_and_element() {
    let data = |seed| Data { seed, ranks: 4, op: Some(ReduceOp::Sum) };
    let base = data(1).input::<i32>(0, 100);
    assert_ne!(base, data(2).input::<i32>(0, 100));
    assert_ne!(base, data(1).input::<i32>(1, 100));
    assert_ne!(base[0], base[1]);
    assert_eq!(base, data(1).input::<i32>(0, 200)[..100]);
}
