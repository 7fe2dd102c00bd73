//! Values that are one number, one word or one path.

use super::Value;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A number of bytes; written with K, M or G for powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub usize);

/// How long the chunks of a call are: a power of two from 1K to 128K, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ChunkSize(u32);

impl ChunkSize {
    /// Of so many bytes. `None`: no chunk is that long, or no power of two.
    pub fn new(bytes: u64) -> Option<ChunkSize> {
        let fits = bytes.is_power_of_two() && (1 << 10..=128 << 10).contains(&bytes);
        fits.then_some(ChunkSize(bytes as u32))
    }

    /// In bytes.
    pub fn bytes(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for ChunkSize {
    type Error = String;
    fn try_from(bytes: u32) -> Result<ChunkSize, String> {
        ChunkSize::new(bytes.into()).ok_or_else(|| format!("chunks of {bytes} bytes"))
    }
}

impl From<ChunkSize> for u32 {
    fn from(chunk: ChunkSize) -> u32 {
        chunk.0
    }
}

/// What a user wants of the sizes of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chunks {
    /// The engine's own in every call, whatever was measured or simulated.
    Usual,
    /// This in every call.
    Of(ChunkSize),
}

impl fmt::Display for ChunkSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.show())
    }
}

/// A whole number, `LOW` to `HIGH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Within<const LOW: u8, const HIGH: u8>(pub u8);

/// 128 bits that only the ranks of a job know. `Debug` does not print them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// An unset setting has no text; the table shows it as a dash.
impl<T: Value> Value for Option<T> {
    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }
    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "-".to_owned(), T::show)
    }
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err("0 or 1".into()),
        }
    }
    fn show(&self) -> String {
        u8::from(*self).to_string()
    }
}

impl Value for u32 {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("a whole number up to {}", u32::MAX))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u16 {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("a whole number up to {}", u16::MAX))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl<const LOW: u8, const HIGH: u8> Value for Within<LOW, HIGH> {
    fn parse(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number| (LOW..=HIGH).contains(number));
        number.map(Within).ok_or_else(|| format!("a whole number from {LOW} to {HIGH}"))
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for Bytes {
    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" | "B" => Some(0),
            "K" | "KB" | "KIB" => Some(10),
            "M" | "MB" | "MIB" => Some(20),
            "G" | "GB" | "GIB" => Some(30),
            _ => None,
        };
        let bytes =
            digits.trim().parse::<usize>().ok().zip(shift).and_then(|(n, shift)| n.checked_mul(1 << shift));
        bytes.map(Bytes).ok_or_else(|| "a size such as 65536, 128K, 4M or 1G".into())
    }
    fn show(&self) -> String {
        let unit = [(30, "G"), (20, "M"), (10, "K")]
            .into_iter()
            .find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift));
        match unit {
            Some((shift, letter)) => format!("{}{letter}", self.0 >> shift),
            None => self.0.to_string(),
        }
    }
}

impl Value for ChunkSize {
    fn parse(text: &str) -> Result<Self, String> {
        let bytes = Bytes::parse(text).ok().and_then(|Bytes(bytes)| ChunkSize::new(bytes as u64));
        bytes.ok_or_else(|| "a power of two from 1K to 128K".into())
    }
    fn show(&self) -> String {
        Bytes(self.0 as usize).show()
    }
}

impl Value for Chunks {
    fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("usual") {
            return Ok(Chunks::Usual);
        }
        ChunkSize::parse(text).map(Chunks::Of).map_err(|expected| format!("`usual`, or {expected}"))
    }
    fn show(&self) -> String {
        match self {
            Chunks::Usual => "usual".into(),
            Chunks::Of(size) => size.show(),
        }
    }
}

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "a time above 0 such as 30 (seconds), 500ms, 1.5s, 10m or 2h";
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[number.len()..] {
            "ms" => 1e-3,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return Err(EXPECTED.into()),
        };
        let seconds = number.trim().parse::<f64>().map_err(|_| EXPECTED)? * unit;
        // A hundred years: larger deadlines overflow the clock when they are added to it.
        match Duration::try_from_secs_f64(seconds) {
            Ok(time) if !time.is_zero() && seconds < 3.2e9 => Ok(time),
            _ => Err(EXPECTED.into()),
        }
    }
    fn show(&self) -> String {
        let (seconds, millis) = (self.as_secs(), self.subsec_millis());
        match (seconds, millis) {
            (0, millis) => format!("{millis}ms"),
            (seconds, 0) if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
            (seconds, 0) => format!("{seconds}s"),
            (seconds, millis) => format!("{}ms", seconds * 1000 + u64::from(millis)),
        }
    }
}

impl Value for Secret {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = || "32 hexadecimal digits".to_owned();
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(expected());
        }
        u128::from_str_radix(text, 16).map(|bits| Secret(bits.to_be_bytes())).map_err(|_| expected())
    }
    fn show(&self) -> String {
        "(secret)".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_take_units() {
        let times = [("30", 30_000), ("500ms", 500), ("1.5s", 1500), ("10m", 600_000), ("2h", 7_200_000)];
        for (text, millis) in times {
            let time: Duration = Value::parse(text).unwrap();
            assert_eq!(time, Duration::from_millis(millis), "{text}");
            assert_eq!(Duration::parse(&time.show()), Ok(time));
        }
        for text in ["", "0", "-1", "x", "10 parsecs", "nan", "inf", "1e30", "ms"] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
        for (text, bytes) in [("1", 1), ("128K", 131_072), ("4M", 4 << 20), ("1g", 1 << 30), ("64KiB", 65536)]
        {
            assert_eq!(Bytes::parse(text), Ok(Bytes(bytes)), "{text}");
            assert_eq!(Bytes::parse(&Bytes(bytes).show()), Ok(Bytes(bytes)));
        }
        for text in ["", "K", "1T", "-1", "99999999999999999G", "1.5M"] {
            assert!(Bytes::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::parse("000102030405060708090a0b0c0d0e0f").unwrap();
        assert_eq!(secret.0[15], 15);
        assert!(!format!("{secret:?}{}", secret.show()).contains("0e"));
        assert!(Secret::parse("+00102030405060708090a0b0c0d0e0f").is_err());
    }
}
