//! Registers made of arrays: right on every CPU, and small enough (16 bytes) that the compiler turns them into NEON or
//! SSE2 code.

use super::codec::{self, Binary16, NAN_F32, NAN_F64};
use super::register::{Arithmetic, Bitwise, Lanes, Register};

/// One element of a type that is reduced as it is.
pub(super) trait Scalar: bytemuck::Pod {
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
    fn divide(self, n: u32) -> Self;
    fn canonical(self) -> Self;
}

macro_rules! integer_scalar {
    ($($integer:ty as $wide:ty),*) => {$(
        impl Scalar for $integer {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }

            #[inline(always)]
            fn max(self, other: Self) -> Self {
                Ord::max(self, other)
            }

            #[inline(always)]
            fn min(self, other: Self) -> Self {
                Ord::min(self, other)
            }

            #[inline(always)]
            fn divide(self, n: u32) -> Self {
                // A rank count need not fit the element's type; the quotient does.
                (<$wide>::from(self) / <$wide>::from(n)) as $integer
            }

            #[inline(always)]
            fn canonical(self) -> Self {
                self
            }
        }
    )*};
}

integer_scalar!(i8 as i64, u8 as u32, i32 as i64, u32 as u32, i64 as i64, u64 as u64);

macro_rules! float_scalar {
    ($float:ty, $nan:expr) => {
        impl Scalar for $float {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }

            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self * other
            }

            #[inline(always)]
            fn max(self, other: Self) -> Self {
                // The two selections differ only where the operands are equal, and then only between the zeros.
                let one = if self > other { self } else { other };
                let two = if other > self { other } else { self };
                let bits = if self.is_nan() | other.is_nan() { $nan } else { one.to_bits() & two.to_bits() };
                <$float>::from_bits(bits)
            }

            #[inline(always)]
            fn min(self, other: Self) -> Self {
                let one = if self < other { self } else { other };
                let two = if other < self { other } else { self };
                let bits = if self.is_nan() | other.is_nan() { $nan } else { one.to_bits() | two.to_bits() };
                <$float>::from_bits(bits)
            }

            #[inline(always)]
            fn divide(self, n: u32) -> Self {
                self / n as $float
            }

            #[inline(always)]
            fn canonical(self) -> Self {
                <$float>::from_bits(if self.is_nan() { $nan } else { self.to_bits() })
            }
        }
    };
}

float_scalar!(f32, NAN_F32);
float_scalar!(f64, NAN_F64);

/// Reads `lanes` of `N` values, zeros after them.
///
/// # Safety
/// That many values at `from` are readable; `lanes <= N`.
#[inline(always)]
unsafe fn read<T: bytemuck::Pod, const N: usize>(from: *const u8, lanes: usize) -> [T; N] {
    if lanes == N {
        // SAFETY: the caller promises N readable values, and any bits are a value.
        return unsafe { from.cast::<[T; N]>().read_unaligned() };
    }
    let mut values = [T::zeroed(); N];
    // SAFETY: the caller promises the source, and `values` holds at least `lanes` values.
    unsafe { values.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from, lanes * size_of::<T>()) };
    values
}

/// Writes the first `lanes` of `values`.
///
/// # Safety
/// That many values at `to` are writable; `lanes <= N`.
#[inline(always)]
unsafe fn write<T: bytemuck::Pod, const N: usize>(values: [T; N], to: *mut u8, lanes: usize) {
    if lanes == N {
        // SAFETY: the caller promises N writable values.
        unsafe { to.cast::<[T; N]>().write_unaligned(values) };
    } else {
        // SAFETY: the caller promises the target, and `values` holds at least `lanes` values.
        unsafe { to.copy_from_nonoverlapping(values.as_ptr().cast(), lanes * size_of::<T>()) };
    }
}

/// A register of `N` elements that are reduced as they are.
#[derive(Clone, Copy)]
pub(super) struct Block<T, const N: usize>([T; N]);

impl<T: Scalar, const N: usize> Block<T, N> {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(T, T) -> T) -> Self {
        let mut out = self;
        for lane in 0..N {
            out.0[lane] = f(self.0[lane], other.0[lane]);
        }
        out
    }
}

impl<T: Scalar, const N: usize> Register for Block<T, N> {
    const LANES: usize = N;
    const SIZE: usize = size_of::<T>();

    #[inline(always)]
    unsafe fn load(from: *const u8, lanes: usize) -> Self {
        // SAFETY: the caller's promise is the one asked for.
        Block(unsafe { read(from, lanes) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8, lanes: usize) {
        // SAFETY: the caller's promise is the one asked for.
        unsafe { write(self.0, to, lanes) }
    }
}

impl<T: Scalar, const N: usize> Arithmetic for Block<T, N> {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, T::add)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, T::mul)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, T::max)
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, T::min)
    }

    #[inline(always)]
    fn divide(self, n: u32) -> Self {
        self.zip(self, |a, _| a.divide(n))
    }

    #[inline(always)]
    fn canonical(self) -> Self {
        self.zip(self, |a, _| a.canonical())
    }
}

impl<const N: usize> Bitwise for Block<u8, N> {
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        self.zip(other, |a, b| a ^ b)
    }
}

/// `N` lanes of 32 bits.
#[derive(Clone, Copy)]
pub(super) struct Words<const N: usize>(pub(super) [u32; N]);

impl<const N: usize> Words<N> {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self {
        let mut out = self;
        for lane in 0..N {
            out.0[lane] = f(self.0[lane], other.0[lane]);
        }
        out
    }

    #[inline(always)]
    fn zip_f32(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        self.zip(other, |a, b| f(f32::from_bits(a), f32::from_bits(b)).to_bits())
    }
}

impl<const N: usize> Lanes for Words<N> {
    const LANES: usize = N;
    type Packed16 = [u16; N];

    #[inline(always)]
    unsafe fn load8(from: *const u8, lanes: usize) -> Self {
        // SAFETY: the caller's promise is the one asked for.
        Words(unsafe { read::<u8, N>(from, lanes) }.map(u32::from))
    }

    #[inline(always)]
    unsafe fn load16(from: *const u8, lanes: usize) -> [u16; N] {
        // SAFETY: the caller's promise is the one asked for.
        unsafe { read(from, lanes) }
    }

    #[inline(always)]
    unsafe fn load32(from: *const u8, lanes: usize) -> Self {
        // SAFETY: the caller's promise is the one asked for.
        Words(unsafe { read(from, lanes) })
    }

    #[inline(always)]
    unsafe fn store8(self, to: *mut u8, lanes: usize) {
        // SAFETY: the caller's promise is the one asked for.
        unsafe { write(self.0.map(|lane| lane as u8), to, lanes) }
    }

    #[inline(always)]
    unsafe fn store16(packed: [u16; N], to: *mut u8, lanes: usize) {
        // SAFETY: the caller's promise is the one asked for.
        unsafe { write(packed, to, lanes) }
    }

    #[inline(always)]
    unsafe fn store32(self, to: *mut u8, lanes: usize) {
        // SAFETY: the caller's promise is the one asked for.
        unsafe { write(self.0, to, lanes) }
    }

    #[inline(always)]
    unsafe fn unpack16(packed: [u16; N]) -> Self {
        Words(packed.map(u32::from))
    }

    #[inline(always)]
    fn pack16(self) -> [u16; N] {
        self.0.map(|lane| lane as u16)
    }

    #[inline(always)]
    unsafe fn widen_f16(packed: [u16; N]) -> Self {
        codec::widen::<Binary16, Self>(Words(packed.map(u32::from)))
    }

    #[inline(always)]
    fn narrow_f16(self) -> [u16; N] {
        codec::narrow::<Binary16, Self>(self).pack16()
    }

    #[inline(always)]
    fn splat(self, bits: u32) -> Self {
        Words([bits; N])
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    #[inline(always)]
    fn wrapping_add(self, other: Self) -> Self {
        self.zip(other, u32::wrapping_add)
    }

    #[inline(always)]
    fn wrapping_sub(self, other: Self) -> Self {
        self.zip(other, u32::wrapping_sub)
    }

    #[inline(always)]
    fn shl(self, by: u32) -> Self {
        self.zip(self, |a, _| a << by)
    }

    #[inline(always)]
    fn shr(self, by: u32) -> Self {
        self.zip(self, |a, _| a >> by)
    }

    #[inline(always)]
    fn min_signed(self, other: Self) -> Self {
        self.zip(other, |a, b| Ord::min(a as i32, b as i32) as u32)
    }

    #[inline(always)]
    fn select_below(self, limit: Self, then: Self, otherwise: Self) -> Self {
        // By masks and without a branch, which the vectoriser would keep.
        let mut out = self;
        for lane in 0..N {
            let below = ((self.0[lane] as i32) < (limit.0[lane] as i32)) as u32;
            let mask = below.wrapping_neg();
            out.0[lane] = (then.0[lane] & mask) | (otherwise.0[lane] & !mask);
        }
        out
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip_f32(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip_f32(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip_f32(other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip_f32(other, |a, b| a / b)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip_f32(other, Scalar::max)
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip_f32(other, Scalar::min)
    }

    #[inline(always)]
    fn canonical(self) -> Self {
        self.zip_f32(self, |a, _| a.canonical())
    }
}
