//! The 128 bytes that bring the ranks of a job together.

use super::handshake::Secret;
use super::host::Identity;
use super::interface::{self, Choice};
use super::rendezvous;
use crate::config::{Config, PortRange};
use crate::control::thread::control_thread;
use crate::error::{Error, Result, remedy};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// How many addresses fit.
const ADDRESSES: usize = 5;
const MAGIC: [u8; 4] = *b"RCID";

/// Where the ranks of a communicator meet, and the key that they prove to each other.
///
/// One process makes it with [`UniqueId::create`] and hands the bytes to all others by any means (a file, a launcher,
/// MPI); each then creates its communicator from it. That process serves the ranks until all have left, so it must
/// live as long; usually it is rank 0. The bytes contain the key: whoever reads them can join.
///
/// ```text
///   0  "RCID"                          24  job u64
///   4  format version u8               32  addresses: 5 of (family u8: 4, 6; 16 bytes)
///   5  number of addresses u8         117  key of the creator's host u64
///   6  port u16                       125  0
///   8  key [16]                       128           all integers little-endian
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UniqueId([u8; 128]);

/// Where to listen, for [`UniqueId::create`] and for a rank.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listening {
    pub choice: Choice,
    /// Ports to choose from; `None`: any free one.
    pub ports: Option<PortRange>,
    /// Overrides the host's identity.
    pub host_id: Option<String>,
}

impl Listening {
    pub(crate) fn new(config: &Config) -> Listening {
        Listening {
            choice: Choice { interfaces: config.socket_ifname.clone(), family: config.socket_family },
            ports: config.port_range,
            host_id: config.host_id.clone(),
        }
    }
}

impl UniqueId {
    /// Length in bytes.
    pub const BYTES: usize = 128;

    /// Makes a new id: binds a TCP port in this process and serves the ranks there from rccl's control thread.
    /// `config` says which interfaces and ports may be used. Does not block.
    ///
    /// # Errors
    /// [`Error::System`] when no port can be bound or no address of this host may be used.
    pub fn create(config: &Config) -> Result<UniqueId> {
        UniqueId::listening(&Listening::new(config))
    }

    fn listening(listening: &Listening) -> Result<UniqueId> {
        let (listener, port) = rendezvous::bind(None, listening)?;
        let all = interface::addresses().map_err(|source| Error::System {
            during: "listing this host's network interfaces".into(),
            hint: remedy(&source).unwrap_or("does this process lack a permission?").into(),
            source: std::sync::Arc::new(source),
        })?;
        let mut addresses = listening.choice.select(&all);
        if addresses.is_empty() {
            return Err(Error::System {
                during: "choosing this host's address for the others".into(),
                source: std::sync::Arc::new(std::io::Error::new(
                    std::io::ErrorKind::AddrNotAvailable,
                    format!("no address is left by {:?}", listening.choice),
                )),
                hint: "set RCCL_SOCKET_IFNAME to an interface of `ip addr`, or unset it".into(),
            });
        }
        addresses.truncate(ADDRESSES);

        let host = Identity::here(listening.host_id.as_deref());
        let secret = Secret { job: rand::random(), key: rand::random() };
        let mut bytes = [0; 128];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = 1;
        bytes[5] = addresses.len() as u8;
        bytes[6..8].copy_from_slice(&port.to_le_bytes());
        bytes[8..24].copy_from_slice(&secret.key);
        bytes[24..32].copy_from_slice(&secret.job.to_le_bytes());
        for (entry, ip) in bytes[32..117].chunks_exact_mut(17).zip(&addresses) {
            match ip {
                IpAddr::V4(ip) => {
                    entry[0] = 4;
                    entry[1..5].copy_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    entry[0] = 6;
                    entry[1..].copy_from_slice(&ip.octets());
                }
            }
        }
        bytes[117..125].copy_from_slice(&host.key.to_le_bytes());
        control_thread()?.spawn(rendezvous::serve(listener, secret, host));
        Ok(UniqueId(bytes))
    }

    /// The bytes, to be handed to the other ranks. They contain the key.
    pub fn to_bytes(&self) -> [u8; 128] {
        self.0
    }

    /// An id from the bytes of another process.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when these are not the bytes of an id of this version.
    pub fn from_bytes(bytes: [u8; 128]) -> Result<UniqueId> {
        let id = UniqueId(bytes);
        let wrong = |what: &str| Error::InvalidArgument {
            call: "UniqueId::from_bytes",
            what: what.into(),
            hint: "hand over all 128 bytes of an id made by the same version of rccl".into(),
        };
        match () {
            () if bytes[..4] != MAGIC => Err(wrong("these bytes are not a unique id")),
            () if bytes[4] != 1 => {
                Err(wrong(&format!("the id has format {} and this process reads 1", bytes[4])))
            }
            () if id.addresses().is_empty() => Err(wrong("the id holds no address")),
            () => Ok(id),
        }
    }

    /// What the members prove to each other.
    pub(crate) fn secret(&self) -> Secret {
        Secret {
            key: std::array::from_fn(|i| self.0[8 + i]),
            job: u64::from_le_bytes(std::array::from_fn(|i| self.0[24 + i])),
        }
    }

    /// Where the creator listens, best first.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let port = u16::from_le_bytes([self.0[6], self.0[7]]);
        let count = usize::from(self.0[5]).min(ADDRESSES);
        self.0[32..117]
            .chunks_exact(17)
            .take(count)
            .filter_map(|entry| match entry[0] {
                4 => Some(IpAddr::from([entry[1], entry[2], entry[3], entry[4]])),
                6 => Some(IpAddr::V6(Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| entry[1 + i])))),
                _ => None,
            })
            .map(|ip| SocketAddr::new(ip, port))
            .collect()
    }

    /// Key of the creator's host.
    pub(crate) fn host_key(&self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|i| self.0[117 + i]))
    }
}

/// Shows where, never the key.
impl fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UniqueId(job {:016x} at {:?})", self.secret().job, self.addresses())
    }
}

/// 256 hexadecimal digits; they contain the key.
impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// From 256 hexadecimal digits.
impl FromStr for UniqueId {
    type Err = Error;

    fn from_str(text: &str) -> Result<UniqueId> {
        let wrong = |what: String| Error::InvalidArgument {
            call: "UniqueId::from_str",
            what,
            hint: "pass the 256 digits that the id was printed as".into(),
        };
        let text = text.trim();
        if text.len() != 256 || !text.is_ascii() {
            return Err(wrong(format!("{} characters instead of 256 hexadecimal digits", text.len())));
        }
        let mut bytes = [0; 128];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|error| wrong(error.to_string()))?;
            *byte = u8::from_str_radix(digits, 16)
                .map_err(|_| wrong(format!("'{digits}' is not a hexadecimal number")))?;
        }
        UniqueId::from_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_bytes_and_text() {
        let id = UniqueId::create(&Config::default()).unwrap();
        assert_eq!(UniqueId::from_bytes(id.to_bytes()).unwrap(), id);
        assert_eq!(id.to_string().parse::<UniqueId>().unwrap(), id);
        assert!(!id.addresses().is_empty());
        assert!(!format!("{id:?}").contains(&id.to_string()[16..48]), "the key is not printed");
    }

    #[test]
    fn other_bytes_are_refused() {
        assert!(UniqueId::from_bytes([0; 128]).is_err());
        assert!("abc".parse::<UniqueId>().is_err());
        assert!("é".repeat(128).parse::<UniqueId>().is_err());
        let mut bytes = UniqueId::create(&Config::default()).unwrap().to_bytes();
        bytes[4] = 9;
        assert!(UniqueId::from_bytes(bytes).is_err());
    }
}
