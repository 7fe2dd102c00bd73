//! Sizes as nccl-tests' users write them, and the series of them that a run goes through.

/// Reads `8`, `64K`, `1.5M`, `2G`; K, M and G are powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size such as 8, 64K, 1.5M or 2G".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(wrong()),
    };
    let unit = 1u64 << shift;
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(unit).ok_or_else(|| format!("{text} is beyond 64 bits"));
    }
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match digits.parse::<f64>() {
        Ok(number) if plain && number * (unit as f64) < u64::MAX as f64 => Ok((number * unit as f64) as u64),
        _ => Err(wrong()),
    }
}

/// A size as its user would write it: 8, 64K, 32M.
pub fn show_size(bytes: u64) -> String {
    let (unit, letter) = match bytes {
        0 => (1, ""),
        _ if bytes.is_multiple_of(1 << 30) => (1 << 30, "G"),
        _ if bytes.is_multiple_of(1 << 20) => (1 << 20, "M"),
        _ if bytes.is_multiple_of(1 << 10) => (1 << 10, "K"),
        _ => (1, ""),
    };
    format!("{}{letter}", bytes / unit)
}

/// The sizes from the smallest to the largest, in bytes.
#[derive(Clone, Debug)]
pub struct Sizes {
    next: Option<u64>,
    end: u64,
    step: u64,
    factor: u64,
}

impl Sizes {
    /// From `begin` to `end`, both included, times `factor` each; where that is 1, plus `step`.
    pub fn new(begin: u64, end: u64, step: u64, factor: u64) -> Sizes {
        Sizes { next: (begin <= end).then_some(begin), end, step, factor }
    }

    /// The size that none is above.
    pub fn largest(&self) -> u64 {
        self.end
    }

    /// How one size follows the other, as nccl-tests says it: `2(factor)` or `1048576(bytes)`.
    pub fn step(&self) -> String {
        if self.factor > 1 { format!("{}(factor)", self.factor) } else { format!("{}(bytes)", self.step) }
    }
}

impl Iterator for Sizes {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let size = self.next?;
        let following = match self.factor {
            0 | 1 => size.checked_add(self.step),
            // No factor leads away from 0.
            _ if size == 0 => Some(8),
            factor => size.checked_mul(factor),
        };
        self.next = following.filter(|&next| size < next && next <= self.end);
        Some(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("8", 8),
            ("64K", 64 << 10),
            ("64k", 64 << 10),
            ("1.5M", 3 << 19),
            ("128MB", 128 << 20),
            ("2G", 2 << 30),
            ("1T", 1 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "K",
            "-1",
            "8X",
            "1e3",
            "nan",
            "inf",
            "0x10",
            "4 K",
            "1.2.3",
            "18446744073709551615K",
            "99999999999999.5T",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!([0, 1000, 64 << 10, 3 << 20, 1 << 31].map(show_size), ["0", "1000", "64K", "3M", "2G"]);
    }

    #[test]
    fn a_series_ends_at_the_largest() {
        assert_eq!(Sizes::new(8, 16, 4, 2).step(), "2(factor)");
        assert_eq!(Sizes::new(8, 16, 4, 1).step(), "4(bytes)");
        let all = |begin, end, step, factor| Sizes::new(begin, end, step, factor).collect::<Vec<_>>();
        assert_eq!(all(8, 64 << 10, 1, 8), [8, 64, 512, 4096, 32768]);
        assert_eq!(all(10, 40, 10, 1), [10, 20, 30, 40]);
        assert_eq!(all(0, 32, 10, 2), [0, 8, 16, 32]);
        assert_eq!(all(5, 5, 0, 1), [5]);
        assert_eq!(all(5, 9, 0, 1), [5]);
        assert_eq!(all(1 << 63, u64::MAX, 1, 4), [1 << 63]);
        assert_eq!(all(9, 5, 1, 2), [0u64; 0]);
    }
}
