//! What a cluster file says, in whatever language it is written. Whatever a file leaves out is as in [`Cluster::default`].
//! `docs/simulator.md` describes the keys.

use crate::config::{Bytes as Size, Value};
use rccl_schedule::simulate::{Cluster, Link, MICROSECOND, Overhead, Placement, Rate, Slow, Time};
use serde::Deserialize;
use std::num::NonZeroU32;

/// A cluster file, which serde reads; what no cluster can have is an error there.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterFile {
    hosts: Hosts,
    network: Network,
    local: Local,
    engine: Engine,
    slow: Vec<SlowEntry>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Hosts {
    ranks: Option<NonZeroU32>,
    placement: Option<Placed>,
    reduce_gb_per_s: Option<Gigabytes>,
    copy_gb_per_s: Option<Gigabytes>,
    memory_gb_per_s: Option<Gigabytes>,
    memory_latency_us: Option<Microseconds>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Network {
    rails: Option<NonZeroU32>,
    rail_gbit_per_s: Option<Gigabits>,
    rail_latency_us: Option<Microseconds>,
    hosts_per_leaf: Option<NonZeroU32>,
    rail_optimised: bool,
    spines: Option<NonZeroU32>,
    oversubscription: Option<Factor>,
    trunk_latency_us: Option<Microseconds>,
    send_us: Option<Microseconds>,
    receive_us: Option<Microseconds>,
    copy_gb_per_s: Option<Gigabytes>,
    eager: Option<Bytes>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Local {
    send_us: Option<Microseconds>,
    receive_us: Option<Microseconds>,
    copy_gb_per_s: Option<Gigabytes>,
    eager: Option<Bytes>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Engine {
    chunk: Option<Chunk>,
    window: Option<NonZeroU32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlowEntry {
    what: String,
    factor: Factor,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Placed {
    Block,
    RoundRobin,
}

/// GB/s, with 10^9 bytes a GB.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "f64")]
struct Gigabytes(Rate);

impl TryFrom<f64> for Gigabytes {
    type Error = String;
    fn try_from(number: f64) -> Result<Gigabytes, String> {
        bandwidth(number, 1.0, "GB/s is no bandwidth; expected 0.000001 to 10^11").map(Gigabytes)
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "f64")]
struct Gigabits(Rate);

impl TryFrom<f64> for Gigabits {
    type Error = String;
    fn try_from(number: f64) -> Result<Gigabits, String> {
        bandwidth(number, 8.0, "Gbit/s is no bandwidth; expected 0.00001 to 10^11").map(Gigabits)
    }
}

/// So many units, of which `in_a_gigabyte` make 10^9 bytes a second.
fn bandwidth(number: f64, in_a_gigabyte: f64, flaw: &str) -> Result<Rate, String> {
    Rate::bytes_per_second(number * 1e9 / in_a_gigabyte).ok_or_else(|| format!("{number} {flaw}"))
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "f64")]
struct Microseconds(Time);

impl TryFrom<f64> for Microseconds {
    type Error = String;
    fn try_from(number: f64) -> Result<Microseconds, String> {
        match number {
            0.0..=1e6 => Ok(Microseconds((number * MICROSECOND as f64).round() as Time)),
            _ => Err(format!("{number} us is no latency; expected 0 to 1,000,000")),
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "f64")]
struct Factor(f64);

impl TryFrom<f64> for Factor {
    type Error = String;
    fn try_from(number: f64) -> Result<Factor, String> {
        match number {
            1e-3..=1e3 => Ok(Factor(number)),
            _ => Err(format!("{number} is no factor; expected 0.001 to 1000")),
        }
    }
}

/// A number of bytes, or a text such as 64K.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "NumberOrText")]
struct Bytes(u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl TryFrom<NumberOrText> for Bytes {
    type Error = String;
    fn try_from(size: NumberOrText) -> Result<Bytes, String> {
        match size {
            NumberOrText::Number(bytes) => Ok(Bytes(bytes)),
            NumberOrText::Text(text) => match Size::parse(&text) {
                Ok(Size(bytes)) => Ok(Bytes(bytes as u64)),
                Err(expected) => Err(format!("expected {expected}")),
            },
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "Bytes")]
struct Chunk(u32);

impl TryFrom<Bytes> for Chunk {
    type Error = String;
    fn try_from(Bytes(bytes): Bytes) -> Result<Chunk, String> {
        let chunk = u32::try_from(bytes).ok().filter(|chunk| (1..=1 << 30).contains(chunk));
        chunk.map(Chunk).ok_or_else(|| format!("{bytes} bytes are no chunk; expected 1 to 1G"))
    }
}

impl ClusterFile {
    /// What it describes.
    pub fn cluster(self) -> Cluster {
        let usual = Cluster::default();
        let ClusterFile { hosts, network, local, engine, slow } = self;
        let number = |given: Option<NonZeroU32>, usual: u32| given.map_or(usual, NonZeroU32::get);
        let time = |given: Option<Microseconds>, usual: Time| given.map_or(usual, |Microseconds(time)| time);
        let rate = |given: Option<Gigabytes>, usual: Rate| given.map_or(usual, |Gigabytes(rate)| rate);
        let bytes = |given: Option<Bytes>, usual: u64| given.map_or(usual, |Bytes(bytes)| bytes);
        Cluster {
            ranks_per_host: number(hosts.ranks, usual.ranks_per_host),
            placement: match hosts.placement {
                None | Some(Placed::Block) => Placement::Block,
                Some(Placed::RoundRobin) => Placement::RoundRobin,
            },
            rails: number(network.rails, usual.rails),
            hosts_per_leaf: number(network.hosts_per_leaf, usual.hosts_per_leaf),
            rail_optimised: network.rail_optimised,
            spines: number(network.spines, usual.spines),
            oversubscription: network
                .oversubscription
                .map_or(usual.oversubscription, |Factor(factor)| factor),
            rail: Link {
                latency: time(network.rail_latency_us, usual.rail.latency),
                rate: network.rail_gbit_per_s.map_or(usual.rail.rate, |Gigabits(rate)| rate),
            },
            trunk_latency: time(network.trunk_latency_us, usual.trunk_latency),
            memory: Link {
                latency: time(hosts.memory_latency_us, usual.memory.latency),
                rate: rate(hosts.memory_gb_per_s, usual.memory.rate),
            },
            network: Overhead {
                send: time(network.send_us, usual.network.send),
                receive: time(network.receive_us, usual.network.receive),
                copy: rate(network.copy_gb_per_s, usual.network.copy),
                eager: bytes(network.eager, usual.network.eager),
            },
            local: Overhead {
                send: time(local.send_us, usual.local.send),
                receive: time(local.receive_us, usual.local.receive),
                copy: rate(local.copy_gb_per_s, usual.local.copy),
                eager: bytes(local.eager, usual.local.eager),
            },
            reduce: rate(hosts.reduce_gb_per_s, usual.reduce),
            copy: rate(hosts.copy_gb_per_s, usual.copy),
            chunk: engine.chunk.map_or(usual.chunk, |Chunk(chunk)| chunk),
            window: number(engine.window, usual.window),
            slow: slow
                .into_iter()
                .map(|SlowEntry { what, factor: Factor(factor) }| Slow { what, factor })
                .collect(),
        }
    }
}
