//! Inputs whose reduction is known exactly.
//!
//! As in nccl-tests, every input is a hash of the seed, the rank and the element's index, scaled so that the result is
//! the same in any order of reduction, for every type: then one wrong bit is a wrong element. How, by type:
//!
//! | | integers | floats |
//! |---|---|---|
//! | sum | any value: integers wrap | small integers; all ranks' magnitudes add up to at most 2^(bits of the mantissa) |
//! | prod | any odd value: no factor is lost, as it would be behind a zero | ± powers of two whose exponents stay in range |
//! | max, min | any value | any value but NaN, the zeros, denormals and infinities too |
//! | avg | small integers whose sum does not wrap | as sum; divided once |
//! | band, bor | any value by two ranks, which depends on the element; of the others all bits set, or none | |
//! | bxor | any value | |
//! | premulsum | as sum: the operands are taken for the products | as sum |
//!
//! A narrow type leaves no room for many ranks (an [`F8E5M2`] counts to 8): there, only some ranks give an element other
//! than 0 (or ±1 in a product), which ones depending on the element.
//!
//! Data that is only moved is any bits, NaN of every kind too.
//!
//! Values repeat after [`PERIOD`] elements, so what is expected is computed once for a call of any size. That number is
//! prime: no chunk that lands in a place where it does not belong looks right there.
//!
//! What is expected comes from plain integer arithmetic on the hashes, and from nothing that the library reduces with.

use bytemuck::Zeroable;
use half::{bf16, f16};
use rccl::{Element, F8E4M3, F8E5M2, ReduceOp};

/// The inputs repeat after this many elements.
pub const PERIOD: usize = 65_521;

/// One call's data: what each rank gives, and what must come out.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// Another seed, other data.
    pub seed: u64,
    /// Ranks that take part.
    pub ranks: u32,
    /// What the call combines with; `None` for one that only copies.
    pub op: Option<ReduceOp>,
}

impl Data {
    /// The elements that `rank` gives, up to where they repeat.
    pub fn input<T: Sample>(&self, rank: u32, count: usize) -> Vec<T> {
        (0..count.min(PERIOD)).map(|index| self.element(rank, index as u64)).collect()
    }

    /// The reduction of what all ranks give, up to where it repeats. Of data without an operator it is as a sum's.
    pub fn reduced<T: Sample>(&self, count: usize) -> Vec<T> {
        let op = self.op.unwrap_or(ReduceOp::Sum);
        let result = |index| T::reduce(op, (0..self.ranks).map(|rank| self.draw(rank, index)), self.ranks);
        (0..count.min(PERIOD)).map(|index| result(index as u64)).collect()
    }

    fn element<T: Sample>(&self, rank: u32, index: u64) -> T {
        let draw = self.draw(rank, index);
        match self.op {
            None => T::any_bits(draw.hash),
            Some(op) => T::operand(op, draw, self.ranks),
        }
    }

    fn draw(&self, rank: u32, index: u64) -> Draw {
        let of_index = mix(self.seed ^ mix(index));
        let turn = of_index % u64::from(self.ranks);
        Draw {
            hash: mix(of_index ^ mix(u64::from(rank) << 32 | 0x5eed)),
            place: ((u64::from(rank) + turn) % u64::from(self.ranks)) as u32,
        }
    }
}

/// What an element of one rank is made from.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    hash: u64,
    /// The rank's place among all for this element; the first places give a value where there is no room for all.
    place: u32,
}

impl Draw {
    /// A whole number for a sum, so that all ranks' magnitudes add up to at most `most`.
    fn whole(self, most: u64, signed: bool, ranks: u32) -> i64 {
        let givers = u64::from(ranks).min(most);
        if u64::from(self.place) >= givers {
            return 0;
        }
        let largest = most / givers;
        if signed {
            (self.hash % (2 * largest + 1)) as i64 - largest as i64
        } else {
            (self.hash % (largest + 1)) as i64
        }
    }

    /// A sign and an exponent for a product of powers of two, so that all ranks' exponents add up to at most ±`most`.
    fn power(self, most: u32, ranks: u32) -> (bool, i32) {
        let givers = ranks.min(most);
        let largest = if self.place < givers { u64::from(most / givers) } else { 0 };
        (self.hash >> 63 == 1, (self.hash % (2 * largest + 1)) as i32 - largest as i32)
    }
}

/// splitmix64's finaliser (Steele, Lea, Flood 2014): every bit of the result depends on every bit of `x`.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A type with data for every operator.
pub trait Sample: Element {
    /// What one rank gives.
    fn operand(op: ReduceOp, draw: Draw, ranks: u32) -> Self;
    /// What the ranks' operands must become.
    fn reduce(op: ReduceOp, draws: impl Iterator<Item = Draw>, ranks: u32) -> Self;

    /// Some bits of the hash as they are.
    fn any_bits(hash: u64) -> Self {
        bytemuck::pod_read_unaligned(&hash.to_ne_bytes()[..size_of::<Self>()])
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Sample for $integer {
            fn operand(op: ReduceOp, draw: Draw, ranks: u32) -> Self {
                let any = draw.hash as $integer;
                match op {
                    ReduceOp::Prod => any | 1,
                    // Were they any bits of many ranks, all results would be the same.
                    ReduceOp::BitAnd if draw.place > 1 => !0,
                    ReduceOp::BitOr if draw.place > 1 => 0,
                    // 2^62 is far from where an i64 wraps, and any narrower type's largest is its own.
                    ReduceOp::Avg => {
                        draw.whole((<$integer>::MAX as u64).min(1 << 62), <$integer>::MIN != 0, ranks) as $integer
                    }
                    _ => any,
                }
            }

            fn reduce(op: ReduceOp, draws: impl Iterator<Item = Draw>, ranks: u32) -> Self {
                let operands = draws.map(|draw| <$integer>::operand(op, draw, ranks));
                match op {
                    ReduceOp::Prod => operands.fold(1, <$integer>::wrapping_mul),
                    ReduceOp::Max => operands.fold(<$integer>::MIN, <$integer>::max),
                    ReduceOp::Min => operands.fold(<$integer>::MAX, <$integer>::min),
                    ReduceOp::Avg => {
                        (operands.map(|operand| operand as i128).sum::<i128>() / i128::from(ranks)) as $integer
                    }
                    ReduceOp::BitAnd => operands.fold(!0, |a, b| a & b),
                    ReduceOp::BitOr => operands.fold(0, |a, b| a | b),
                    ReduceOp::BitXor => operands.fold(0, |a, b| a ^ b),
                    _ => operands.fold(0, <$integer>::wrapping_add),
                }
            }
        }
    )*};
}

integers!(i8, u8, i32, u32, i64, u64);

/// What the table of floats below needs of a type: how far it counts, its powers of two, and how it is made.
trait Float: Sample {
    /// Whole numbers up to this are exact.
    const WHOLE: u64;
    /// Powers of two from minus to plus this are normal numbers.
    const POWER: u32;
    /// The nearest value to a quotient that was rounded to the precision in which this type is reduced.
    fn quotient(sum: i64, ranks: u32) -> Self;
    /// An exact value.
    fn exact(value: f64) -> Self;
    /// The same value, exact.
    fn value(self) -> f64;
}

macro_rules! floats {
    ($($float:ty: whole $whole:expr, power $power:expr, $reduced_in:ty, $narrow:expr, $widen:expr;)*) => {$(
        impl Float for $float {
            const WHOLE: u64 = $whole;
            const POWER: u32 = $power;
            fn quotient(sum: i64, ranks: u32) -> Self {
                let narrow: fn($reduced_in) -> $float = $narrow;
                narrow(sum as $reduced_in / ranks as $reduced_in)
            }
            fn exact(value: f64) -> Self {
                let narrow: fn($reduced_in) -> $float = $narrow;
                narrow(value as $reduced_in)
            }
            fn value(self) -> f64 {
                let widen: fn($float) -> $reduced_in = $widen;
                f64::from(widen(self))
            }
        }

        impl Sample for $float {
            fn operand(op: ReduceOp, draw: Draw, ranks: u32) -> Self {
                operand_of_floats(op, draw, ranks)
            }
            fn reduce(op: ReduceOp, draws: impl Iterator<Item = Draw>, ranks: u32) -> Self {
                reduce_floats(op, draws, ranks)
            }
        }
    )*};
}

// `whole` is 2 to the number of mantissa bits with the hidden one; `power` the lesser of the exponent's two ends.
floats! {
    f64: whole 1 << 53, power 1022, f64, |value| value, |value| value;
    f32: whole 1 << 24, power 126, f32, |value| value, |value| value;
    f16: whole 1 << 11, power 14, f32, f16::from_f32, f16::to_f32;
    bf16: whole 1 << 8, power 126, f32, bf16::from_f32, bf16::to_f32;
    F8E4M3: whole 1 << 4, power 6, f32, F8E4M3::from_f32, F8E4M3::to_f32;
    F8E5M2: whole 1 << 3, power 14, f32, F8E5M2::from_f32, F8E5M2::to_f32;
}

fn operand_of_floats<T: Float>(op: ReduceOp, draw: Draw, ranks: u32) -> T {
    match op {
        ReduceOp::Prod => {
            let (negative, exponent) = draw.power(T::POWER, ranks);
            power_of_two(negative, exponent)
        }
        ReduceOp::Max | ReduceOp::Min => {
            let any = T::any_bits(draw.hash);
            if any.value().is_nan() { T::exact(-1.0) } else { any }
        }
        _ => T::exact(draw.whole(T::WHOLE, true, ranks) as f64),
    }
}

fn reduce_floats<T: Float>(op: ReduceOp, draws: impl Iterator<Item = Draw>, ranks: u32) -> T {
    let operand = |draw| operand_of_floats::<T>(op, draw, ranks);
    let in_order = |a: &T, b: &T| a.value().total_cmp(&b.value());
    match op {
        ReduceOp::Prod => {
            let powers = draws.map(|draw| draw.power(T::POWER, ranks));
            let (negative, exponent) = powers
                .fold((false, 0), |(sign, sum), (negative, exponent)| (sign ^ negative, sum + exponent));
            power_of_two(negative, exponent)
        }
        // The total order of floats is that of numbers, with -0 below +0.
        ReduceOp::Max => draws.map(operand).max_by(in_order).unwrap_or_else(Zeroable::zeroed),
        ReduceOp::Min => draws.map(operand).min_by(in_order).unwrap_or_else(Zeroable::zeroed),
        op => {
            let sum: i64 = draws.map(|draw| draw.whole(T::WHOLE, true, ranks)).sum();
            if op == ReduceOp::Avg { T::quotient(sum, ranks) } else { T::exact(sum as f64) }
        }
    }
}

fn power_of_two<T: Float>(negative: bool, exponent: i32) -> T {
    let magnitude = f64::from_bits(((1023 + exponent) as u64) << 52);
    T::exact(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests;
