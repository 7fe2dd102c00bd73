//! Cluster files. Whatever a file leaves out is as in [`Cluster::default`]; what no cluster can have is an error that
//! names line and column. `docs/simulator.md` describes the keys.

use crate::perf::parse_size;
use rccl_schedule::simulate::{Cluster, Link, MICROSECOND, Overhead, Placement, Rate, Slow, Time};
use serde::Deserialize;
use std::io::Read;
use std::num::NonZeroU32;
use std::path::Path;

/// Reads a file, `-` being standard input. The error is one line.
pub fn read(path: &Path) -> Result<Cluster, String> {
    let shown = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().lock().read_to_string(&mut text).map(|_| ()),
        false => std::fs::read_to_string(path).map(|all| text = all),
    };
    read.map_err(|error| format!("cannot read cluster file {shown}: {error}"))?;
    let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    parse(&text, json).map_err(|flaw| format!("{shown}:{flaw}"))
}

/// Reads a file's text. The error is `LINE:COLUMN: what is wrong`.
pub fn parse(text: &str, json: bool) -> Result<Cluster, String> {
    let file: Result<File, _> = if json { from_json(text) } else { from_toml(text) };
    file.map(File::cluster)
}

fn from_json(text: &str) -> Result<File, String> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = error.to_string();
        let place = format!(" at line {line} column {column}");
        format!("{line}:{column}: {}", message.strip_suffix(&place).unwrap_or(&message))
    })
}

fn from_toml(text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        format!("{}: {}", rccl::tuner::place(text, at), error.message().replace('\n', "; "))
    })
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
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
            NumberOrText::Text(text) => parse_size(&text).map(Bytes),
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

impl File {
    fn cluster(self) -> Cluster {
        let usual = Cluster::default();
        let File { hosts, network, local, engine, slow } = self;
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

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    const SAMPLE: &str = include_str!("../../../docs/clusters/clos-2to1.toml");

    #[test]
    fn an_empty_file_is_the_usual_cluster() {
        assert_eq!(parse("", false), Ok(Cluster::default()));
        assert_eq!(parse("{}", true), Ok(Cluster::default()));
    }

    #[test]
    fn both_languages_say_the_same() {
        let toml = "hosts.ranks = 4\nnetwork = { rail_gbit_per_s = 200, rail_optimised = true, eager = \"32K\" }\nengine.chunk = 4096\n\
                    [[slow]]\nwhat = \"host 1\"\nfactor = 2.5";
        let json = r#"{"hosts": {"ranks": 4}, "network": {"rail_gbit_per_s": 200.0, "rail_optimised": true, "eager": 32768},
                       "engine": {"chunk": "4K"}, "slow": [{"what": "host 1", "factor": 2.5}]}"#;
        let cluster = parse(toml, false).unwrap();
        assert_eq!(parse(json, true).as_ref(), Ok(&cluster));
        assert_eq!((cluster.ranks_per_host, cluster.network.eager, cluster.chunk), (4, 32 << 10, 4096));
        assert_eq!((cluster.rail.rate, cluster.rail_optimised), (Rate::gigabytes(25.0), true));
        assert_eq!(cluster.slow, [Slow { what: "host 1".into(), factor: 2.5 }]);
    }

    #[test]
    fn flaws_have_a_place_and_name_what_is_known() {
        for (text, json, place, words) in [
            ("[hosts]\nrank = 8", false, "2:1: ", "unknown field `rank`, expected one of `ranks`"),
            ("[network]\n\nspines = 0", false, "3:10: ", "nonzero"),
            ("[network]\nrail_gbit_per_s = -1", false, "2:19: ", "-1 Gbit/s is no bandwidth"),
            ("hosts = {\n", false, "", ""),
            ("[network]\nrail_optimised = 1", false, "2:18: ", "expected a boolean"),
            ("[engine]\nchunk = \"9X\"", false, "2:9: ", "expected a size"),
            ("[engine]\nchunk = 0", false, "2:9: ", "no chunk"),
            ("{\"hosts\": {\n \"rank\": 8}}", true, "2:7: ", "unknown field `rank`, expected one of `ranks`"),
            ("{\"engine\": {\"window\": -4}}", true, "1:", "-4"),
        ] {
            let flaw = parse(text, json).unwrap_err();
            assert!(flaw.starts_with(place) && flaw.contains(words), "{text}: {flaw}");
            assert!(!flaw.contains('\n'), "{flaw}");
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        let json = r#"{"hosts": {"ranks": 4}, "slow": [{"what": "host 1", "factor": 2.5}]}"#;
        let mut random = StdRng::seed_from_u64(1);
        for (sample, is_json) in [(SAMPLE, false), (json, true)] {
            assert!(parse(sample, is_json).is_ok());
            for _ in 0..2000 {
                let mut bytes = sample.as_bytes().to_vec();
                for _ in 0..random.random_range(1..6) {
                    let at = random.random_range(0..bytes.len());
                    match random.random_range(0..3) {
                        0 => bytes[at] = random.random(),
                        1 => bytes.truncate(at.max(1)),
                        _ => bytes.insert(at, b"[]{}\"'=.,-0e\n"[random.random_range(0..13)]),
                    }
                }
                let _ = parse(&String::from_utf8_lossy(&bytes), is_json);
            }
        }
    }
}
