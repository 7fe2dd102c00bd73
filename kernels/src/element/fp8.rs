//! The two 8-bit floats of the OCP 8-bit Floating Point Specification (OFP8), as storage types.
//!
//! ```text
//!            7   6        3 2     0             7   6          2 1   0
//! E4M3     | s | exponent | mant. |   E5M2    | s |  exponent  | m.  |
//!              bias 7                             bias 15
//! largest    0x7E = 448                         0x7B = 57344
//! infinity   none                               0x7C
//! NaN        0x7F                               0x7D, 0x7E, 0x7F
//! ```
//!
//! Conversion from f32 rounds to nearest, ties to even, and saturates: a finite value beyond the largest becomes the
//! largest with its sign, as in NCCL and in OFP8's saturating mode. An infinity stays one in E5M2, because it has a code
//! there and min and max must be able to return their operand, and becomes the largest in E4M3. NaN becomes the
//! positive quiet NaN (0x7F in E4M3, 0x7E in E5M2), whatever its sign and payload.
//!
//! The conversion itself is the one that the reduction kernels use.

use crate::kernel::codec;

macro_rules! fp8 {
    ($(#[$doc:meta])* $name:ident, $codec:ty, max $max:literal) => {
        $(#[$doc])*
        ///
        /// Two values compare as their codes do: NaN equals NaN of the same code and -0 differs from +0. Convert to f32
        /// for arithmetic comparison.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(transparent)]
        pub struct $name(
            /// The code: sign, exponent and mantissa as stored.
            pub u8,
        );

        impl $name {
            /// The largest finite value.
            pub const MAX: $name = $name($max);

            /// The nearest value, ties to even; beyond [`Self::MAX`] it saturates, see the module's text.
            pub fn from_f32(value: f32) -> Self {
                Self(codec::narrow_one::<$codec>(value) as u8)
            }

            /// The same value as f32; exact.
            pub fn to_f32(self) -> f32 {
                codec::widen_one::<$codec>(u32::from(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&self.to_f32(), f)
            }
        }

        impl From<$name> for f32 {
            fn from(value: $name) -> f32 {
                value.to_f32()
            }
        }
    };
}

fp8! {
    /// An OFP8 E4M3 float: 4 exponent bits, 3 mantissa bits, no infinity ("fn"), largest value 448.
    F8E4M3, codec::E4M3, max 0x7E
}

fp8! {
    /// An OFP8 E5M2 float: 5 exponent bits, 2 mantissa bits, with infinities, largest finite value 57344.
    F8E5M2, codec::E5M2, max 0x7B
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a code by the specification's formula, in f64.
    fn by_formula(code: u8, mantissa_bits: u32, bias: i32) -> f64 {
        let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
        let exponent = i32::from((code & 0x7F) >> mantissa_bits);
        let fraction = f64::from(code & ((1 << mantissa_bits) - 1)) / f64::from(1u32 << mantissa_bits);
        match exponent {
            0 => sign * fraction * 2f64.powi(1 - bias),
            _ => sign * (1.0 + fraction) * 2f64.powi(exponent - bias),
        }
    }

    #[test]
    fn every_e4m3_code_has_its_value_and_comes_back() {
        for code in 0..=255u8 {
            let value = F8E4M3(code).to_f32();
            if code & 0x7F == 0x7F {
                assert!(value.is_nan());
                assert_eq!(F8E4M3::from_f32(value).0, 0x7F);
            } else {
                assert_eq!(f64::from(value).to_bits(), by_formula(code, 3, 7).to_bits(), "code {code:#x}");
                assert_eq!(F8E4M3::from_f32(value).0, code);
            }
        }
    }

    #[test]
    fn every_e5m2_code_has_its_value_and_comes_back() {
        for code in 0..=255u8 {
            let value = F8E5M2(code).to_f32();
            match code & 0x7F {
                0x7C => assert_eq!(value, if code < 0x80 { f32::INFINITY } else { f32::NEG_INFINITY }),
                0x7D..=0x7F => {
                    assert!(value.is_nan());
                    assert_eq!(F8E5M2::from_f32(value).0, 0x7E);
                    continue;
                }
                _ => assert_eq!(
                    f64::from(value).to_bits(),
                    by_formula(code, 2, 15).to_bits(),
                    "code {code:#x}"
                ),
            }
            assert_eq!(F8E5M2::from_f32(value).0, code);
        }
    }

    /// Between two neighbours the nearer wins, and the even code in the middle; both signs.
    fn check_rounding(widen: fn(u8) -> f32, narrow: fn(f32) -> u8, largest: u8) {
        for code in 0..largest {
            let (low, high) = (widen(code), widen(code + 1));
            let middle = (low + high) / 2.0; // exact: f32 has far more mantissa bits
            let even = if code % 2 == 0 { code } else { code + 1 };
            for sign in [0u8, 0x80] {
                let flip = |value: f32| if sign == 0 { value } else { -value };
                assert_eq!(narrow(flip(middle)), even | sign, "middle of {code:#x} and the next");
                assert_eq!(narrow(flip(middle.next_down())), code | sign, "below the middle of {code:#x}");
                assert_eq!(
                    narrow(flip(middle.next_up())),
                    (code + 1) | sign,
                    "above the middle of {code:#x}"
                );
            }
        }
    }

    #[test]
    fn rounds_to_nearest_even() {
        check_rounding(|c| F8E4M3(c).to_f32(), |v| F8E4M3::from_f32(v).0, 0x7E);
        check_rounding(|c| F8E5M2(c).to_f32(), |v| F8E5M2::from_f32(v).0, 0x7B);
    }

    #[test]
    fn saturates() {
        for (value, e4m3, e5m2) in [
            (449.0, 0x7E, 0x5F),
            (1e9, 0x7E, 0x7B),
            (-1e9, 0xFE, 0xFB),
            (f32::MAX, 0x7E, 0x7B),
            (f32::INFINITY, 0x7E, 0x7C),
            (f32::NEG_INFINITY, 0xFE, 0xFC),
            (-f32::NAN, 0x7F, 0x7E),
            (1e-45, 0x00, 0x00),
            (-1e-45, 0x80, 0x80),
        ] {
            assert_eq!(F8E4M3::from_f32(value).0, e4m3, "{value} as E4M3");
            assert_eq!(F8E5M2::from_f32(value).0, e5m2, "{value} as E5M2");
        }
        assert_eq!(F8E4M3::MAX.to_f32(), 448.0);
        assert_eq!(F8E5M2::MAX.to_f32(), 57344.0);
        assert_eq!(format!("{:?}", F8E4M3::from_f32(1.5)), "1.5");
    }
}
