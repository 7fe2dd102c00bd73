//! Ranges of IP addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range of IP addresses that begin with the same bits: `10.7.0.0/24`, `fd07::/64`. Bits behind the length are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Prefix {
    ip: IpAddr,
    length: u8,
}

impl Prefix {
    /// The range of `length` bits that `ip` is in; `None` if the address has fewer bits than that.
    pub fn new(ip: IpAddr, length: u8) -> Option<Prefix> {
        let ip = match ip {
            IpAddr::V4(ip) if length <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(ip) & mask))
            }
            IpAddr::V6(ip) if length <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask))
            }
            _ => return None,
        };
        Some(Prefix { ip, length })
    }

    /// Whether an address is in it; never one of the other family.
    pub fn contains(self, ip: IpAddr) -> bool {
        Prefix::new(ip, self.length) == Some(self)
    }

    /// Bits that all its addresses begin with.
    pub fn length(self) -> u8 {
        self.length
    }

    /// Its first address.
    pub fn ip(self) -> IpAddr {
        self.ip
    }
}

/// An address with `/` and a length, or alone for all its bits.
impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Prefix, String> {
        let expected = || "a range of addresses such as 10.7.0.0/16 or fd07::/48".to_owned();
        let (ip, length) = match text.split_once('/') {
            Some((ip, length)) => (ip, length.trim().parse().map_err(|_| expected())?),
            None => (text, if text.contains(':') { 128 } else { 32 }),
        };
        let ip = ip.trim().parse().map_err(|_| expected())?;
        Prefix::new(ip, length).ok_or_else(expected)
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Prefix, String> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_begins_alike() {
        let range: Prefix = "10.7.3.4/16".parse().unwrap();
        assert_eq!(range.to_string(), "10.7.0.0/16");
        assert!(range.contains("10.7.255.1".parse().unwrap()));
        assert!(!range.contains("10.8.0.1".parse().unwrap()));
        assert!(!range.contains("::ffff:10.7.0.1".parse().unwrap()));
        let all: Prefix = "::/0".parse().unwrap();
        assert!(all.contains("fe80::1".parse().unwrap()) && !all.contains("10.0.0.1".parse().unwrap()));
        assert_eq!("10.7.0.1".parse::<Prefix>().unwrap().length(), 32);
        assert_eq!("fd07::1".parse::<Prefix>().unwrap().length(), 128);
        for text in ["", "10.7.0.0/33", "fd07::/129", "10.7/16", "/8", "10.7.0.0/", "x/8"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
