//! What hosts look like to a program that wants to talk between them, and what of RDMA it should use.
//!
//! ```text
//! sysfs, netlink  ->  Host  -- choose(host, wishes) -->  Choice: rails, and why not the others
//!                                                           |
//!                                     adverts of both hosts v
//!                                        pair(mine, theirs)  ->  which rail talks to which
//! ```
//!
//! Discovery ([`Host::discover`]) only reads; the choices are pure functions over what was read, so they can be tried
//! on made-up hosts, give the same answer every time, and the two ends of a pair decide the same without asking.
//! Everything that is left out has a reason that says so in a sentence.
//!
//! [`processors`] says what a host computes with and what this process may use of it, and [`Neighbour`] which switches it
//! is plugged into. [`job`] puts together what the hosts of a job tell of themselves.
//!
//! Beside that stand NCCL's files, which describe whole hosts and what is joined to what in them:
//!
//! ```text
//! topology file <-- xml --> System -- paths --> Network: path types and bandwidths
//!                             | search: rings, trees, channels; over many hosts, too
//!                             v
//! graph file    <-- xml --> Graphs              draw: pictures of both
//! ```
//!
//! A *rail* is a port that this process may use. An *address* of it is an entry of the port's GID table; a queue pair
//! is bound to one. An [`Advert`] is what the other hosts are told of an address.

#![forbid(unsafe_code)]

mod advert;
mod carrier;
mod choose;
mod device_list;
mod discover;
pub mod draw;
mod gid;
pub mod graph;
mod host;
pub mod job;
mod lldp;
mod network;
mod pair;
pub mod paths;
mod prefix;
pub mod processors;
mod reason;
pub mod search;
mod sysfs;
pub mod system;
mod wishes;
pub mod xml;

pub use advert::Advert;
pub use choose::{Choice, Rail, RailAddress, Rejected, TrafficClass, choose};
pub use device_list::DeviceList;
pub use gid::{Gid, GidKind, Scope};
pub use host::{
    Congestion, ConnectionDefaults, Device, GidEntry, Host, Interface, LinkLayer, NodeKind, PartitionKey,
    Port, PortState, natural_order, roce_mtu,
};
pub use lldp::Neighbour;
pub use network::{Address, Network, Route};
pub use pair::{Pairing, Unpaired, Way, pair};
pub use prefix::Prefix;
pub use reason::Reason;
pub use wishes::{Family, RoceVersion, Wishes};
