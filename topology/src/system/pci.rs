//! Addresses, classes and link speeds of PCI devices.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::Role;

/// Address of a PCI device: "0000:3b:00.0".
///
/// Virtual machines and fabrics have addresses that no bus has: "ffff:ff:01.0", "fffffff:ff:ff.0". So the parts are as
/// wide as their digits, not as a bus has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BusId {
    /// Domain, also called segment.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, also called slot.
    pub device: u8,
    /// Function.
    pub function: u8,
}

/// Text that is no PCI address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusIdError;

impl fmt::Display for BusIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a PCI address is domain:bus:device.function in hexadecimal, as 0000:3b:00.0")
    }
}

impl std::error::Error for BusIdError {}

impl FromStr for BusId {
    type Err = BusIdError;

    /// Accepts upper case, and an address without domain, which is in domain 0.
    fn from_str(text: &str) -> Result<BusId, BusIdError> {
        let (places, function) = text.trim().rsplit_once('.').ok_or(BusIdError)?;
        let mut places = places.rsplit(':');
        let mut next = || places.next().ok_or(BusIdError);
        let (device, bus) = (hex(next()?)?, hex(next()?)?);
        let domain = next().map_or(Ok(0), hex)?;
        if places.next().is_some() {
            return Err(BusIdError);
        }
        let byte = |number: u32| u8::try_from(number).map_err(|_| BusIdError);
        Ok(BusId { domain, bus: byte(bus)?, device: byte(device)?, function: byte(hex(function)?)? })
    }
}

fn hex(digits: &str) -> Result<u32, BusIdError> {
    // from_str_radix takes a sign.
    match digits.starts_with('+') {
        true => Err(BusIdError),
        false => u32::from_str_radix(digits, 16).map_err(|_| BusIdError),
    }
}

impl fmt::Display for BusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BusId { domain, bus, device, function } = self;
        f.pad(&format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"))
    }
}

impl Serialize for BusId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What kind of device a PCI device is: base class, subclass and programming interface, a byte each. Prints as
/// "0x030200".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PciClass(pub u32);

/// Text that is no PCI class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciClassError;

impl fmt::Display for PciClassError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a PCI class is 2, 4 or 6 hexadecimal digits, as 0x030200")
    }
}

impl std::error::Error for PciClassError {}

impl PciClass {
    /// A switch between GPUs, as NCCL calls NVIDIA's.
    pub const NV_SWITCH: PciClass = PciClass(0x06_8000);
    /// A bridge from GPU links to a processor.
    pub const NV_BRIDGE: PciClass = PciClass(0x06_8001);

    /// What devices of this class are to a collective.
    pub fn role(self) -> Role {
        match self.0 >> 16 {
            // Display controllers, and processing accelerators as AMD calls some of its GPUs.
            0x03 | 0x12 => Role::Gpu,
            0x02 => Role::Nic,
            0x06 if self.0 >> 8 == 0x0604 => Role::Switch,
            _ => Role::Other,
        }
    }
}

impl FromStr for PciClass {
    type Err = PciClassError;

    /// "0x03" is the base class 3, whatever the rest.
    fn from_str(text: &str) -> Result<PciClass, PciClassError> {
        let digits = text.trim();
        let digits = digits.strip_prefix("0x").or(digits.strip_prefix("0X")).unwrap_or(digits);
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(PciClassError);
        }
        let shift = match digits.len() {
            2 => 16,
            4 => 8,
            6 => 0,
            _ => return Err(PciClassError),
        };
        u32::from_str_radix(digits, 16).map(|class| PciClass(class << shift)).map_err(|_| PciClassError)
    }
}

impl fmt::Display for PciClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#08x}", self.0)
    }
}

impl Serialize for PciClass {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Speed of a PCI lane, in megatransfers a second. Prints as the kernel does: "16.0 GT/s PCIe".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkSpeed(pub u32);

impl LinkSpeed {
    /// The words of the kernel and of NCCL's files: "8 GT/s", "8.0 GT/s PCIe". `None` for others: the kernel says
    /// "Unknown" where it does not know.
    pub fn from_words(words: &str) -> Option<LinkSpeed> {
        let mut words = words.split_whitespace();
        let speed: f64 = words.next()?.parse().ok()?;
        let plausible = (0.1..=10_000.0).contains(&speed) && words.next() == Some("GT/s");
        // In range, so nothing is cut off.
        plausible.then(|| LinkSpeed((speed * 1000.0).round() as u32))
    }
}

impl fmt::Display for LinkSpeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} GT/s PCIe", f64::from(self.0) / 1000.0)
    }
}

impl Serialize for LinkSpeed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_machines_and_fabrics_have_them() {
        let print = |text: &str| text.parse::<BusId>().map(|bus| bus.to_string());
        assert_eq!(print("0000:3b:00.0").unwrap(), "0000:3b:00.0");
        assert_eq!(print("0000:AF:1F.7").unwrap(), "0000:af:1f.7");
        assert_eq!(print("3b:00.1").unwrap(), "0000:3b:00.1");
        assert_eq!(print("fffffff:ff:ff.0").unwrap(), "fffffff:ff:ff.0");
        assert_eq!(print("10000:01:00.0").unwrap(), "10000:01:00.0");
        let wrong =
            ["", "0000", "0000:3b:00", "0000:3b:00.", "x:3b:00.0", "0:0:3b:00.0", "0:100:0.0", "+1:3b:00.0"];
        for text in wrong {
            assert_eq!(print(text), Err(BusIdError), "{text}");
        }
    }

    #[test]
    fn classes_in_full_and_in_part() {
        let role = |text: &str| text.parse::<PciClass>().map(PciClass::role);
        assert_eq!(role("0x060400"), Ok(Role::Switch));
        assert_eq!(role("0x03"), Ok(Role::Gpu));
        assert_eq!(role("0x120000"), Ok(Role::Gpu));
        assert_eq!(role("0x0207"), Ok(Role::Nic));
        assert_eq!(role("0x068000"), Ok(Role::Other));
        assert_eq!("0x03".parse::<PciClass>().unwrap().to_string(), "0x030000");
        for text in ["", "0x", "0x3", "gpu", "0x1030200"] {
            assert_eq!(role(text), Err(PciClassError), "{text}");
        }
    }

    #[test]
    fn speeds_of_old_and_new_kernels() {
        for (words, speed) in
            [("2.5 GT/s", 2500), ("8 GT/s", 8000), ("8.0 GT/s PCIe", 8000), ("64.0 GT/s PCIe", 64_000)]
        {
            assert_eq!(LinkSpeed::from_words(words), Some(LinkSpeed(speed)), "{words}");
        }
        for words in ["", "Unknown", "Unknown speed", "fast GT/s", "8", "-8 GT/s", "NaN GT/s", "1e300 GT/s"] {
            assert_eq!(LinkSpeed::from_words(words), None, "{words}");
        }
        for speed in [2500, 5000, 8000, 16_000, 32_000, 64_000] {
            let words = LinkSpeed(speed).to_string();
            assert_eq!(LinkSpeed::from_words(&words), Some(LinkSpeed(speed)), "{words}");
        }
        assert_eq!(LinkSpeed(16_000).to_string(), "16.0 GT/s PCIe");
    }
}
