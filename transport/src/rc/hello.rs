//! What one end tells the other of its queue pairs and its block before they are connected.
//!
//! All integers are little-endian.
//!
//! ```text
//!  byte  0        4         6        8         12        16         20         24                 32
//!       +--------+---------+--------+---------+---------+----------+----------+------------------+
//!       | "RCCL" | version | rails  | pairs   | eager   | slots    | slot     | block's address  |
//!       +--------+---------+--------+---------+---------+----------+----------+------------------+
//! then for each rail, 32 bytes:
//!       | GID (16)         | LID (2) | MTU (2) | GID type (2) | place (2) | key (4) | longest write (4) |
//! then for each queue pair, 16 bytes, the k-th of which is for the k-th of the peer, on rail k modulo rails:
//!       | number (4)       | first PSN (4)     | ECE vendor (4)     | ECE options (4)             |
//! ```
//!
//! A rail's place is its number among the rails of the link, from 0 and ascending: after a failure some may be missing.
//! `version` is 1, `rails` and `version` have two bytes, all other fields as drawn. An MTU is told in bytes.

use rccl_verbs::{Gid, Mtu, Psn, QpNumber};

use super::error::RcError;
use super::{MOST_PAIRS, MOST_RAILS};

const MAGIC: &[u8; 4] = b"RCCL";
const VERSION: u16 = 1;

/// An end's greeting: what its peer needs to connect to it. To be passed over an authenticated connection, because who
/// knows the keys in it can write to the memory of this link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub(super) eager: u32,
    pub(super) slots: u32,
    pub(super) slot: u32,
    pub(super) address: u64,
    pub(super) rails: Vec<RailHello>,
    pub(super) pairs: Vec<PairHello>,
}

/// One end of a rail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RailHello {
    pub(super) gid: Gid,
    pub(super) lid: u16,
    pub(super) mtu: Mtu,
    pub(super) kind: u16,
    /// Which rail of the link it is.
    pub(super) place: u16,
    /// Of the block.
    pub(super) key: u32,
    /// Bytes that one write may have.
    pub(super) longest: u32,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PairHello {
    pub(super) number: QpNumber,
    pub(super) psn: Psn,
    /// Vendor and options, zero for none.
    pub(super) ece: (u32, u32),
}

impl Hello {
    /// As bytes, 800 at most.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.rails.len() as u16).to_le_bytes());
        for word in [self.pairs.len() as u32, self.eager, self.slots, self.slot] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.address.to_le_bytes());
        for rail in &self.rails {
            bytes.extend(rail.gid.0);
            bytes.extend(rail.lid.to_le_bytes());
            bytes.extend((rail.mtu.bytes() as u16).to_le_bytes());
            bytes.extend(rail.kind.to_le_bytes());
            bytes.extend(rail.place.to_le_bytes());
            for word in [rail.key, rail.longest] {
                bytes.extend(word.to_le_bytes());
            }
        }
        for pair in &self.pairs {
            for word in [pair.number.0, pair.psn.number(), pair.ece.0, pair.ece.1] {
                bytes.extend(word.to_le_bytes());
            }
        }
        bytes
    }

    /// The rail at a place of the link.
    pub(super) fn rail(&self, place: usize) -> Option<&RailHello> {
        self.rails.iter().find(|rail| usize::from(rail.place) == place)
    }

    /// Leaves out the rails that are not `wanted`, and their queue pairs.
    pub(super) fn keep(&mut self, wanted: impl Fn(usize) -> bool) {
        let wanted: Vec<bool> = self.rails.iter().map(|rail| wanted(rail.place.into())).collect();
        let mut k = 0;
        self.pairs.retain(|_| {
            k += 1;
            wanted[(k - 1) % wanted.len()]
        });
        let mut rail = wanted.iter();
        self.rails.retain(|_| rail.next() == Some(&true));
    }

    /// From a peer's bytes.
    ///
    /// # Errors
    /// [`RcError::Greeting`] with what was seen: another version, too short or too long, numbers that cannot be.
    pub fn from_bytes(bytes: &[u8]) -> Result<Hello, RcError> {
        read(bytes).map_err(|what| RcError::Greeting { what })
    }
}

fn read(bytes: &[u8]) -> Result<Hello, String> {
    let mut rest = Reader { bytes, read: 0 };
    let magic = rest.take::<4>()?;
    if magic != *MAGIC {
        return Err(format!("it begins with {magic:02x?}, not with {MAGIC:02x?}"));
    }
    let version = rest.u16()?;
    if version != VERSION {
        return Err(format!("it is of version {version}, this library speaks {VERSION}"));
    }
    let rails = usize::from(rest.u16()?);
    let pairs = rest.u32()? as usize;
    let fits = (1..=MOST_RAILS).contains(&rails) && (rails..=MOST_PAIRS).contains(&pairs);
    if !fits || !pairs.is_multiple_of(rails) {
        return Err(format!("{rails} rails and {pairs} queue pairs"));
    }
    let (eager, slots, slot) = (rest.u32()?, rest.u32()?, rest.u32()?);
    let address = u64::from_le_bytes(rest.take()?);
    let mut least = 0;
    let rails = (0..rails)
        .map(|_| {
            let gid = Gid(rest.take()?);
            let lid = rest.u16()?;
            let mtu = rest.u16()?;
            let mtu = Mtu::from_bytes(mtu.into()).ok_or_else(|| format!("an MTU of {mtu} bytes"))?;
            let (kind, place) = (rest.u16()?, rest.u16()?);
            if place < least || usize::from(place) >= MOST_RAILS {
                return Err(format!("a rail at place {place}, expected {least} to {}", MOST_RAILS - 1));
            }
            least = place + 1;
            Ok(RailHello { gid, lid, mtu, kind, place, key: rest.u32()?, longest: rest.u32()? })
        })
        .collect::<Result<_, String>>()?;
    let pairs = (0..pairs)
        .map(|_| {
            let (number, psn) = (rest.u32()?, rest.u32()?);
            if number >= 1 << 24 || psn >= 1 << 24 {
                return Err(format!("queue pair number {number} and PSN {psn}, which have 24 bits"));
            }
            let ece = (rest.u32()?, rest.u32()?);
            Ok(PairHello { number: QpNumber(number), psn: Psn::new(psn), ece })
        })
        .collect::<Result<_, String>>()?;
    if rest.read < bytes.len() {
        return Err(format!("{} bytes too many", bytes.len() - rest.read));
    }
    Ok(Hello { eager, slots, slot, address, rails, pairs })
}

struct Reader<'a> {
    bytes: &'a [u8],
    read: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let piece = self.bytes.get(self.read..).and_then(<[u8]>::first_chunk::<N>);
        self.read += N;
        piece.copied().ok_or_else(|| format!("it ends after {} bytes", self.bytes.len()))
    }
    fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_le_bytes(self.take()?))
    }
    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    fn hello(rails: usize, pairs: usize) -> Hello {
        let rail = |n: usize| RailHello {
            gid: Gid([n as u8; 16]),
            lid: 0x1234,
            mtu: Mtu::Mtu1024,
            kind: 2,
            place: n as u16,
            key: 0x0a0b_0c0d,
            longest: 1 << 23,
        };
        let pair = |n: usize| PairHello {
            number: QpNumber(0xff_0000 + n as u32),
            psn: Psn::new(n as u32),
            ece: (1, n as u32),
        };
        Hello {
            eager: 8192,
            slots: 16,
            slot: 32768,
            address: 1 << 46,
            rails: (0..rails).map(rail).collect(),
            pairs: (0..pairs).map(pair).collect(),
        }
    }

    #[test]
    fn greetings_survive_the_wire() {
        for (rails, pairs) in [(1, 1), (2, 8), (MOST_RAILS, MOST_PAIRS)] {
            let hello = hello(rails, pairs);
            let bytes = hello.to_bytes();
            assert_eq!(bytes.len(), 32 + 32 * rails + 16 * pairs);
            assert!(bytes.len() <= 800);
            assert_eq!(Hello::from_bytes(&bytes).unwrap(), hello);
        }
    }

    #[test]
    fn rails_are_left_out_with_their_queue_pairs() {
        let mut hello = hello(3, 6);
        hello.keep(|place| place != 1);
        assert_eq!(hello.rails.iter().map(|rail| rail.place).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(hello.pairs.iter().map(|pair| pair.psn.number()).collect::<Vec<_>>(), [0, 2, 3, 5]);
        assert!(hello.rail(1).is_none() && hello.rail(2).is_some());
    }

    #[test]
    fn what_is_not_a_greeting_is_refused_with_what_was_seen() {
        let good = hello(2, 4).to_bytes();
        let refused = |bytes: &[u8]| Hello::from_bytes(bytes).unwrap_err().to_string();
        for len in 0..good.len() {
            assert!(refused(&good[..len]).contains("ends after"), "{len}");
        }
        assert!(refused(&[&good[..], &[0]].concat()).contains("1 bytes too many"));
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            refused(&bytes)
        };
        assert!(changed(0, 7).contains("begins with"));
        assert!(changed(4, 2).contains("version 2"));
        assert!(changed(6, 9).contains("9 rails"));
        assert!(changed(8, 17).contains("17 queue pairs"));
        assert!(changed(32 + 19, 9).contains("MTU"));
        assert!(changed(32 + 64 + 3, 1).contains("24 bits"));
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(5);
        let good = hello(2, 4).to_bytes();
        for _ in 0..100_000 {
            let mut bytes = good.clone();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            let _ = Hello::from_bytes(&bytes);
        }
    }
}
