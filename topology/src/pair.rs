//! Which rail of one host talks to which of another.
//!
//! Both hosts compute it from the same two lists, each with its own as the first, and get the same pairs in the same
//! order. So every tie is broken by something that looks alike from both ends: [`Key`].

use std::fmt;

use crate::advert::Advert;
use crate::gid::{Gid, GidKind};

/// Two addresses that talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pairing {
    /// Place in the first list.
    pub mine: usize,
    /// Place in the second list.
    pub theirs: usize,
    /// How they reach each other.
    pub way: Way,
}

/// How two addresses reach each other, the better first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// On one link: both subnets hold the other's address; on InfiniBand both are of one subnet.
    Link,
    /// Over routers: each is routed through the other's interface.
    Routed,
    /// Nothing is known of an end's subnet and routes, so nothing speaks against it.
    Unknown,
}

/// Why no rail of one host can talk to any of another. Printed, a sentence without its full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unpaired {
    /// This side has no rail.
    NoneHere,
    /// The other side has no rail.
    NoneThere,
    /// RoCE against InfiniBand, or v1 against v2.
    Kinds {
        /// This side's.
        mine: Vec<GidKind>,
        /// The other's.
        theirs: Vec<GidKind>,
    },
    /// No way between their networks, as far as both know.
    NoWay {
        /// This side's addresses.
        mine: Vec<String>,
        /// The other's.
        theirs: Vec<String>,
    },
}

impl Unpaired {
    /// The sentence with names for this host and the other, such as "rank 0's host".
    pub fn between(&self, mine: &str, theirs: &str) -> String {
        let kinds =
            |kinds: &[GidKind]| kinds.iter().map(GidKind::to_string).collect::<Vec<_>>().join(" and ");
        match self {
            Unpaired::NoneHere => format!("{mine} has no RDMA port that can be used"),
            Unpaired::NoneThere => format!("{theirs} has no RDMA port that can be used"),
            Unpaired::Kinds { mine: here, theirs: there } => format!(
                "the RDMA ports of {mine} speak {}, those of {theirs} {}, which do not understand each other",
                kinds(here),
                kinds(there)
            ),
            Unpaired::NoWay { mine: here, theirs: there } => format!(
                "no RDMA port of {mine} ({}) shares a subnet with one of {theirs} ({}), and no routes lead from one to \
                 the other and back through the ports' own interfaces",
                here.join(", "),
                there.join(", ")
            ),
        }
    }
}

impl fmt::Display for Unpaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.between("this host", "the other host"))
    }
}

/// Pairs two hosts' rails: each rail in one pair at the most, so that the host with fewer decides how many. Addresses
/// on one link go before routed ones, rails of equal number before others, then each rail's better addresses. RoCE v1 is
/// used only if nothing else connects the two hosts. A host may be paired with itself.
///
/// The result does not depend on the order of the lists, and the other end gets the same pairs in the same order.
///
/// # Errors
/// [`Unpaired`]: why there is no pair at all.
pub fn pair(mine: &[Advert], theirs: &[Advert]) -> Result<Vec<Pairing>, Unpaired> {
    let mut all: Vec<(Key, Pairing)> = Vec::new();
    for (m, own) in mine.iter().enumerate() {
        for (t, other) in theirs.iter().enumerate() {
            if let Some(way) = way(own, other) {
                all.push((Key::new(own, other, way), Pairing { mine: m, theirs: t, way }));
            }
        }
    }
    if all.is_empty() {
        return Err(why_not(mine, theirs));
    }
    all.sort_by_key(|(key, _)| *key);
    let reserve_only = all[0].0.reserve;
    let mut pairs: Vec<(Key, Pairing)> = Vec::new();
    for (key, pairing) in all {
        let taken = pairs.iter().any(|(_, other)| {
            mine[other.mine].rail == mine[pairing.mine].rail
                || theirs[other.theirs].rail == theirs[pairing.theirs].rail
        });
        if key.reserve == reserve_only && !taken {
            pairs.push((key, pairing));
        }
    }
    pairs.sort_by_key(|(key, _)| (key.rails, key.gids));
    Ok(pairs.into_iter().map(|(_, pairing)| pairing).collect())
}

/// What pairs are ordered by. It is the same from both ends, and two pairs that share a rail never have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// RoCE v1.
    reserve: bool,
    way: Way,
    /// Their rails have different numbers.
    crossed: bool,
    /// The lower number, the higher one.
    rails: (u16, u16),
    /// How far their addresses lead, the better first.
    scopes: (crate::Scope, crate::Scope),
    /// Lower and higher place in the tables.
    indices: (u8, u8),
    /// The lower address, the higher one.
    gids: (Gid, Gid),
}

impl Key {
    fn new(one: &Advert, other: &Advert, way: Way) -> Key {
        fn ordered<T: Ord>(one: T, other: T) -> (T, T) {
            if one <= other { (one, other) } else { (other, one) }
        }
        Key {
            reserve: one.kind == GidKind::RoceV1,
            way,
            crossed: one.rail != other.rail,
            rails: ordered(one.rail, other.rail),
            scopes: ordered(one.gid.scope(), other.gid.scope()),
            indices: ordered(one.index, other.index),
            gids: ordered(one.gid, other.gid),
        }
    }
}

fn way(one: &Advert, other: &Advert) -> Option<Way> {
    if one.kind != other.kind {
        return None;
    }
    if one.kind == GidKind::InfiniBand {
        // Addresses of another subnet are behind a router, which connections by LID do not pass.
        return (one.gid.subnet_prefix() == other.gid.subnet_prefix()).then_some(Way::Link);
    }
    let (here, there) = (one.gid.ip(), other.gid.ip());
    if here.is_ipv4() != there.is_ipv4() {
        return None;
    }
    if here == there || one.shares_link_with(there) && other.shares_link_with(here) {
        return Some(Way::Link);
    }
    let may_reach = |from: &Advert, to| !from.knows_ways() || from.reaches(to);
    if !may_reach(one, there) || !may_reach(other, here) {
        None
    } else if !one.knows_ways() || !other.knows_ways() {
        Some(Way::Unknown)
    } else {
        // No router forwards v1.
        (one.kind == GidKind::RoceV2).then_some(Way::Routed)
    }
}

fn why_not(mine: &[Advert], theirs: &[Advert]) -> Unpaired {
    let kinds = |adverts: &[Advert]| {
        let mut kinds: Vec<GidKind> = adverts.iter().map(|advert| advert.kind).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    };
    let (here, there) = (kinds(mine), kinds(theirs));
    let names = |adverts: &[Advert]| {
        let mut names: Vec<&Advert> = adverts.iter().collect();
        names.sort_by_key(|advert| (advert.rail, advert.gid));
        names.into_iter().map(Advert::to_string).collect()
    };
    if mine.is_empty() {
        Unpaired::NoneHere
    } else if theirs.is_empty() {
        Unpaired::NoneThere
    } else if here.iter().all(|kind| !there.contains(kind)) {
        Unpaired::Kinds { mine: here, theirs: there }
    } else {
        Unpaired::NoWay { mine: names(mine), theirs: names(theirs) }
    }
}
