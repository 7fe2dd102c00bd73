//! How f32, f16, bf16 and the two fp8 types are widened to f32 and rounded back, written once for all instruction sets.
//!
//! f16 and fp8 share one codec, [`Minifloat`]; CPUs with an f16 instruction use that instead, with the same bits. bf16 is
//! the upper half of an f32, rounded with the well-known carry trick. The AVX-512 BF16 instruction is not used: it takes
//! subnormal inputs for zero, and results would depend on the CPU.

use super::portable::Words;
use super::register::{Format, Lanes};

/// The bits of the canonical f32 NaN.
pub(super) const NAN_F32: u32 = 0x7FC0_0000;
/// The bits of the canonical f64 NaN.
pub(super) const NAN_F64: u64 = 0x7FF8_0000_0000_0000;

/// A float of 8 or 16 bits: one sign bit, then the exponent, then `MANTISSA` bits.
pub(crate) trait Minifloat {
    const BITS: u32;
    const MANTISSA: u32;
    const BIAS: u32;
    /// The code that finite values beyond the range get.
    const OVERFLOW: u32;
    /// The code of infinity, if there is one; all positive codes above it are NaN.
    const INFINITY: Option<u32>;
    /// The code of the canonical NaN.
    const NAN: u32;
}

macro_rules! minifloat {
    ($name:ident, bits $bits:literal, mantissa $mantissa:literal, bias $bias:literal,
     overflow $overflow:literal, infinity $infinity:expr, nan $nan:literal) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Minifloat for $name {
            const BITS: u32 = $bits;
            const MANTISSA: u32 = $mantissa;
            const BIAS: u32 = $bias;
            const OVERFLOW: u32 = $overflow;
            const INFINITY: Option<u32> = $infinity;
            const NAN: u32 = $nan;
        }
    };
}

minifloat!(E4M3, bits 8, mantissa 3, bias 7, overflow 0x7E, infinity None, nan 0x7F);
minifloat!(E5M2, bits 8, mantissa 2, bias 15, overflow 0x7B, infinity Some(0x7C), nan 0x7E);
minifloat!(Binary16, bits 16, mantissa 10, bias 15, overflow 0x7C00, infinity Some(0x7C00), nan 0x7E00);

/// Widens codes in the low ends of the lanes to f32; exact.
#[inline(always)]
pub(super) fn widen<M: Minifloat, L: Lanes>(code: L) -> L {
    let sign_bit = 1 << (M::BITS - 1);
    let magnitude = code.and(code.splat(sign_bit - 1));
    let sign = code.and(code.splat(sign_bit)).shl(32 - M::BITS);

    // Shifted into place, the number lacks only the difference of the biases in its exponent. A subnormal has no
    // implicit one: read it as a normal number with one, and take that one off again.
    let shifted = magnitude.shl(23 - M::MANTISSA);
    let normal = shifted.wrapping_add(code.splat((127 - M::BIAS) << 23));
    let one = code.splat((128 - M::BIAS) << 23);
    let subnormal = shifted.wrapping_add(one).sub(one);
    let finite = magnitude.select_below(code.splat(1 << M::MANTISSA), subnormal, normal);

    let value = match M::INFINITY {
        Some(infinity) => {
            let special = shifted.wrapping_add(code.splat((255 - (infinity >> M::MANTISSA)) << 23));
            magnitude.select_below(code.splat(infinity), finite, special)
        }
        None => magnitude.select_below(code.splat(M::NAN), finite, code.splat(NAN_F32)),
    };
    value.or(sign)
}

/// Rounds f32 lanes to the nearest codes, ties to even, in the low ends of the lanes; NaN becomes the canonical one.
#[inline(always)]
pub(super) fn narrow<M: Minifloat, L: Lanes>(value: L) -> L {
    let sign_bit = 1u32 << (M::BITS - 1);
    let magnitude = value.and(value.splat(0x7FFF_FFFF));
    let sign = value.shr(32 - M::BITS).and(value.splat(sign_bit));

    // Normal: add just under half of the last place kept, and one more where that place is odd; the carry rounds.
    let drop = 23 - M::MANTISSA;
    let odd = magnitude.shr(drop).and(value.splat(1));
    let rounded = magnitude.wrapping_add(value.splat((1 << (drop - 1)) - 1)).wrapping_add(odd);
    let normal = rounded.shr(drop).wrapping_sub(value.splat((127 - M::BIAS) << M::MANTISSA));
    // Subnormal: added to a power of two whose last place is the least subnormal, the FPU rounds to that place.
    let magic = value.splat((127 + 24 - M::BIAS - M::MANTISSA) << 23);
    let subnormal = magnitude.add(magic).wrapping_sub(magic);

    let least_normal = value.splat((128 - M::BIAS) << 23);
    let mut code =
        magnitude.select_below(least_normal, subnormal, normal).min_signed(value.splat(M::OVERFLOW));
    if let Some(infinity) = M::INFINITY.filter(|code| *code != M::OVERFLOW) {
        code = magnitude.select_below(value.splat(0x7F80_0000), code, value.splat(infinity));
    }
    magnitude.select_below(value.splat(0x7F80_0001), code.or(sign), value.splat(M::NAN))
}

/// [`widen`] for one code.
pub(crate) fn widen_one<M: Minifloat>(code: u32) -> f32 {
    f32::from_bits(widen::<M, _>(Words([code])).0[0])
}

/// [`narrow`] for one value.
pub(crate) fn narrow_one<M: Minifloat>(value: f32) -> u32 {
    narrow::<M, _>(Words([value.to_bits()])).0[0]
}

macro_rules! fp8_format {
    ($($name:ident),*) => {$(
        impl Format for $name {
            const SIZE: usize = 1;

            #[inline(always)]
            unsafe fn load<L: Lanes>(from: *const u8, lanes: usize) -> L {
                // SAFETY: the caller's promise is the one asked for, the element's size being 1.
                widen::<$name, L>(unsafe { L::load8(from, lanes) })
            }

            #[inline(always)]
            unsafe fn store<L: Lanes>(value: L, to: *mut u8, lanes: usize) {
                // SAFETY: the caller's promise is the one asked for, the element's size being 1.
                unsafe { narrow::<$name, L>(value).store8(to, lanes) }
            }
        }
    )*};
}

fp8_format!(E4M3, E5M2);

impl Format for Binary16 {
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8, lanes: usize) -> L {
        // SAFETY: the caller's promise is the one asked for, the element's size being 2.
        let packed = unsafe { L::load16(from, lanes) };
        // SAFETY: the caller promises the instruction set.
        unsafe { L::widen_f16(packed) }
    }

    #[inline(always)]
    unsafe fn store<L: Lanes>(value: L, to: *mut u8, lanes: usize) {
        // SAFETY: the caller's promise is the one asked for; `value` is proof of the instruction set.
        unsafe { L::store16(value.narrow_f16(), to, lanes) }
    }
}

/// bfloat16.
#[derive(Clone, Copy)]
pub(super) struct Brain16;

impl Format for Brain16 {
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8, lanes: usize) -> L {
        // SAFETY: the caller's promise is the one asked for, the element's size being 2.
        let packed = unsafe { L::load16(from, lanes) };
        // SAFETY: the caller promises the instruction set.
        unsafe { L::unpack16(packed) }.shl(16)
    }

    #[inline(always)]
    unsafe fn store<L: Lanes>(value: L, to: *mut u8, lanes: usize) {
        // The canonical NaN has zeros below, so the rounding leaves it alone; infinity too.
        let odd = value.shr(16).and(value.splat(1));
        let rounded = value.wrapping_add(value.splat(0x7FFF)).wrapping_add(odd).shr(16);
        // SAFETY: the caller's promise is the one asked for; `value` is proof of the instruction set.
        unsafe { L::store16(rounded.pack16(), to, lanes) }
    }
}

/// f32 itself.
#[derive(Clone, Copy)]
pub(super) struct Single;

impl Format for Single {
    const SIZE: usize = 4;

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8, lanes: usize) -> L {
        // SAFETY: the caller's promise is the one asked for, the element's size being 4.
        unsafe { L::load32(from, lanes) }
    }

    #[inline(always)]
    unsafe fn store<L: Lanes>(value: L, to: *mut u8, lanes: usize) {
        // SAFETY: the caller's promise is the one asked for, the element's size being 4.
        unsafe { value.store32(to, lanes) }
    }
}
