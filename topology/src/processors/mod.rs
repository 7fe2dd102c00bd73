//! The processors of a host: packages, caches, how far memory is, and what of them this process may use.
//!
//! Paths and formats: Documentation/ABI/testing/sysfs-devices-system-cpu and stable/sysfs-devices-node of the Linux kernel.

mod limits;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Serialize, Serializer};

pub use limits::Limits;

use crate::sysfs::{names, parsed, text};
use crate::system::CpuSet;

/// Processors of a host, as far as the kernel shows them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Processors {
    /// Those that the kernel uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<CpuSet>,
    /// Packages (sockets), in the order of their numbers.
    pub packages: Vec<Package>,
    /// Caches: from the largest level to the smallest, and by their first processor.
    pub caches: Vec<Cache>,
    /// NUMA nodes, in the order of their numbers.
    pub nodes: Vec<NumaNode>,
    /// What this process may use of all that.
    pub limits: Limits,
}

/// A package: what is put into a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Package {
    /// The platform's number of it.
    pub number: u32,
    /// How many cores it has; a core may be several processors.
    pub cores: u32,
    /// Its processors.
    pub cpus: CpuSet,
}

/// A cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// From 1, the nearest to the processor.
    pub level: u32,
    /// What it keeps.
    pub kind: CacheKind,
    /// Bytes; absent where the kernel does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The processors that share it.
    pub cpus: CpuSet,
}

/// What a cache keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheKind {
    /// Both.
    Unified,
    /// Data only.
    Data,
    /// Instructions only.
    Instruction,
}

impl fmt::Display for Cache {
    /// Its name as processor manuals have it: "L3", "L1d", "L1i".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            CacheKind::Unified => "",
            CacheKind::Data => "d",
            CacheKind::Instruction => "i",
        };
        write!(f, "L{}{kind}", self.level)
    }
}

/// A NUMA node's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NumaNode {
    /// The kernel's number of it.
    pub number: u32,
    /// Bytes of its memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// How far memory of other nodes, and its own, is from its processors, by their numbers: 10 is near, and 20 takes twice
    /// as long (ACPI's System Locality Information Table). Empty if it cannot be told.
    #[serde(serialize_with = "pairs")]
    pub distances: BTreeMap<u32, u32>,
}

/// JSON's keys are text; a list of pairs keeps the numbers numbers.
fn pairs<S: Serializer>(distances: &BTreeMap<u32, u32>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(distances)
}

impl Processors {
    /// Reads the processors of a host, and the limits of this process, beneath `root`, which is `/` but for tests and trees
    /// of other machines. Reads some 20 small files a processor, which takes milliseconds; does not fail.
    pub fn discover(root: &Path) -> Processors {
        let directory = root.join("sys/devices/system/cpu");
        let is_processor =
            |name: &String| name.strip_prefix("cpu").is_some_and(|rest| rest.parse::<u32>().is_ok());
        let mut packages: BTreeMap<u32, Vec<Core>> = BTreeMap::new();
        let mut caches = Vec::new();
        for name in names(&directory).into_iter().filter(is_processor) {
            let path = directory.join(&name);
            if let Some((package, core)) = core(&path, &name) {
                packages.entry(package).or_default().push(core);
            }
            for index in names(&path.join("cache")) {
                caches.extend(cache(&path.join("cache").join(index)).filter(|cache| !caches.contains(cache)));
            }
        }
        let first = |cache: &Cache| cache.cpus.processors().next();
        caches.sort_by_key(|cache: &Cache| (std::cmp::Reverse(cache.level), cache.kind, first(cache)));
        Processors {
            online: list(&directory.join("online")),
            packages: packages.into_iter().map(|(number, cores)| Package::of(number, &cores)).collect(),
            caches,
            nodes: nodes(&root.join("sys/devices/system/node")),
            limits: Limits::discover(root),
        }
    }
}

/// A processor, and the cores of its package that it is one of.
struct Core {
    processor: usize,
    /// Unique within a die only, so both.
    number: (Option<i32>, i32),
}

fn core(path: &Path, name: &str) -> Option<(u32, Core)> {
    let topology = path.join("topology");
    let number = (parsed(&topology.join("die_id")), parsed(&topology.join("core_id"))?);
    // -1 where the platform does not say.
    let package = parsed(&topology.join("physical_package_id"))?;
    Some((package, Core { processor: name.strip_prefix("cpu")?.parse().ok()?, number }))
}

impl Package {
    fn of(number: u32, processors: &[Core]) -> Package {
        let mut cores: Vec<_> = processors.iter().map(|core| core.number).collect();
        cores.sort_unstable();
        cores.dedup();
        Package {
            number,
            cores: cores.len() as u32,
            cpus: processors.iter().map(|core| core.processor).collect(),
        }
    }
}

fn cache(path: &Path) -> Option<Cache> {
    let kind = match text(&path.join("type"))?.as_str() {
        "Unified" => CacheKind::Unified,
        "Data" => CacheKind::Data,
        "Instruction" => CacheKind::Instruction,
        _ => return None,
    };
    Some(Cache {
        level: parsed(&path.join("level"))?,
        kind,
        bytes: text(&path.join("size")).and_then(|size| bytes(&size)),
        cpus: parsed(&path.join("shared_cpu_map"))?,
    })
}

/// "1024K"; other units in case a kernel has them.
fn bytes(size: &str) -> Option<u64> {
    let digits = size.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match &size[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A set of processors as a list: "0-15".
fn list(path: &Path) -> Option<CpuSet> {
    CpuSet::from_list(&text(path)?)
}

fn nodes(directory: &Path) -> Vec<NumaNode> {
    let numbered: Vec<(u32, String)> = names(directory)
        .into_iter()
        .filter_map(|name| Some((name.strip_prefix("node")?.parse().ok()?, name)))
        .collect();
    let node = |(number, name): &(u32, String)| {
        let path = directory.join(name);
        let words = text(&path.join("distance")).unwrap_or_default();
        let distances: Vec<u32> = words.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        // One for each node, in their order. Nodes that came or went meanwhile would shift them.
        let whole = distances.len() == numbered.len();
        let others = numbered.iter().map(|(number, _)| *number);
        NumaNode {
            number: *number,
            memory: memory(&path.join("meminfo")),
            distances: others.zip(distances).filter(|_| whole).collect(),
        }
    };
    numbered.iter().map(node).collect()
}

/// "Node 0 MemTotal:       8152384 kB"
fn memory(path: &Path) -> Option<u64> {
    let text = text(path)?;
    let total = text.lines().find_map(|line| line.split_once("MemTotal:"))?.1;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}
