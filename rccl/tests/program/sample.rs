//! Elements with the arithmetic that results are compared with.
//!
//! Integers wrap, so any value will do. Floats get small whole numbers, of which every sum and product is exact in
//! their type whatever the order, so that there is one right result; where nothing is computed, any bits.

use half::{bf16, f16};
use rccl::{Element, F8E4M3, F8E5M2, ReduceOp};

/// A type of elements.
pub trait Sample: Element {
    /// An operand of `op`, or anything where nothing is computed.
    fn input(op: Option<ReduceOp>, bits: u64) -> Self;
    /// What a rank's operands are multiplied by.
    fn scalar(bits: u64) -> Self;
    /// The operands of all ranks, and each rank's scalar, combined.
    fn combine(op: ReduceOp, operands: &[Self], scalars: &[Self]) -> Self;

    /// A sum divided by a number of ranks.
    fn divided(self, ranks: usize) -> Self;

    fn of_bits(bits: u64) -> Self {
        bytemuck::pod_read_unaligned(&bits.to_le_bytes()[..size_of::<Self>()])
    }
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Sample for $type {
            fn input(op: Option<ReduceOp>, bits: u64) -> $type {
                match op {
                    // So small that the sum of 8 ranks does not wrap: an average of what has wrapped is none.
                    Some(ReduceOp::Avg) => (bits % 15) as $type - if <$type>::MIN == 0 { 0 } else { 7 },
                    _ => bits as $type,
                }
            }

            fn scalar(bits: u64) -> $type {
                bits as $type
            }

            fn divided(self, ranks: usize) -> $type {
                self / ranks as $type
            }

            fn combine(op: ReduceOp, operands: &[$type], scalars: &[$type]) -> $type {
                let all = operands.iter().copied();
                let sum = |all: &mut dyn Iterator<Item = $type>| all.fold(0, <$type>::wrapping_add);
                match op {
                    ReduceOp::Sum => sum(&mut all.into_iter()),
                    ReduceOp::Prod => all.fold(1, <$type>::wrapping_mul),
                    ReduceOp::Max => all.fold(<$type>::MIN, <$type>::max),
                    ReduceOp::Min => all.fold(<$type>::MAX, <$type>::min),
                    ReduceOp::Avg => sum(&mut all.into_iter()).divided(operands.len()),
                    ReduceOp::BitAnd => all.fold(!0, |a, b| a & b),
                    ReduceOp::BitOr => all.fold(0, |a, b| a | b),
                    ReduceOp::BitXor => all.fold(0, |a, b| a ^ b),
                    ReduceOp::PreMulSum => sum(&mut all.zip(scalars).map(|(a, &b)| a.wrapping_mul(b))),
                    _ => unreachable!("{op}"),
                }
            }
        }
    )*};
}

integers!(i8 u8 i32 u32 i64 u64);

macro_rules! floats {
    ($($type:ty: $most:expr, $scalars:expr, $from:expr, $to:expr;)*) => {$(
        impl Sample for $type {
            fn input(op: Option<ReduceOp>, bits: u64) -> $type {
                const MOST: u64 = $most;
                let whole = match op {
                    None => return Self::of_bits(bits),
                    Some(ReduceOp::Prod) => [-2.0, -1.0, 1.0, 2.0][(bits >> 7) as usize % 4],
                    _ => ((bits >> 7) % (2 * MOST + 1)) as f64 - MOST as f64,
                };
                // There is one zero only; minus zero is another test's matter.
                ($from)(whole)
            }

            fn scalar(bits: u64) -> $type {
                let scalars: &[f64] = &$scalars;
                ($from)(scalars[(bits >> 7) as usize % scalars.len()])
            }

            fn divided(self, ranks: usize) -> $type {
                ($from)(($to)(self) / ranks as f64)
            }

            fn combine(op: ReduceOp, operands: &[$type], scalars: &[$type]) -> $type {
                let all = operands.iter().map(|&x| ($to)(x));
                let scalars = scalars.iter().map(|&x| ($to)(x));
                ($from)(match op {
                    ReduceOp::Sum => all.sum::<f64>() + 0.0,
                    ReduceOp::Prod => all.product(),
                    ReduceOp::Max => all.fold(f64::NEG_INFINITY, f64::max),
                    ReduceOp::Min => all.fold(f64::INFINITY, f64::min),
                    ReduceOp::Avg => (all.sum::<f64>() + 0.0) / operands.len() as f64,
                    ReduceOp::PreMulSum => all.zip(scalars).map(|(a, b)| a * b).reduce(|a, b| a + b).unwrap_or(0.0),
                    _ => unreachable!("{op}"),
                })
            }
        }
    )*};
}

// The most that 8 operands and their scalars give is exact: 8 in 3 bits, 256 in 8, 2^24 in 24.
floats! {
    f16: 10, [-3.0, -1.0, 1.0, 2.0], |x: f64| f16::from_f32(x as f32), |x: f16| f64::from(x.to_f32());
    bf16: 10, [-3.0, -1.0, 1.0, 2.0], |x: f64| bf16::from_f32(x as f32), |x: bf16| f64::from(x.to_f32());
    f32: 1 << 18, [-3.0, -0.5, 1.0, 2.5], |x: f64| x as f32, f64::from;
    f64: 1 << 18, [-3.0, -0.5, 1.0, 2.5], |x: f64| x, |x: f64| x;
    F8E4M3: 1, [-1.0, 1.0], |x: f64| F8E4M3::from_f32(x as f32), |x: F8E4M3| f64::from(x.to_f32());
    F8E5M2: 1, [-1.0, 1.0], |x: f64| F8E5M2::from_f32(x as f32), |x: F8E5M2| f64::from(x.to_f32());
}
