//! What is told of one host: the JSON, which the text is made from too.

use super::facts::{Facts, Library, Locked, Opened};
use super::finding::{Finding, any_error};
use super::ranks::rounds::PairReport;
use rccl_topology::{Choice, Device, GidEntry, Interface, LinkLayer, Port, TrafficClass};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The number of the JSON's form. It goes up when a key changes its meaning or goes away.
const SCHEMA: u32 = 1;

/// Everything that `--json` prints. `findings` are those between hosts.
pub fn json(
    healthy: bool,
    verdict: &str,
    ranks: &[serde_json::Value],
    hosts: &[&Report],
    pairs: &[PairReport],
    findings: &[Finding],
) -> String {
    let json = serde_json::json!({
        "schema": SCHEMA,
        "healthy": healthy,
        "verdict": verdict,
        "ranks": ranks,
        "hosts": hosts,
        "pairs": pairs,
        "findings": findings,
    });
    format!("{json:#}\n")
}

/// The report on one host. Its keys are stable: later versions add keys, and `docs/doctor.md` describes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub host: String,
    pub kernel: String,
    pub version: String,
    pub net: String,
    pub settings: BTreeMap<String, String>,
    pub container: Option<String>,
    pub namespaces: Option<String>,
    pub library: Library,
    pub locked_memory: Locked,
    pub devices: Vec<DeviceReport>,
    pub interfaces: Vec<Interface>,
    pub findings: Vec<Finding>,
    pub healthy: bool,
    /// One sentence.
    pub verdict: String,
}

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    pub name: String,
    pub kind: String,
    pub driver: Option<String>,
    pub board: Option<String>,
    pub firmware: Option<String>,
    pub pci: Option<String>,
    pub numa_node: Option<u32>,
    /// The device file; absent where the library does not offer the device.
    pub file: Option<String>,
    /// Why it cannot be opened, or is not used at all.
    pub error: Option<String>,
    pub ports: Vec<PortReport>,
}

/// A port of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortReport {
    pub number: u8,
    pub state: String,
    pub physical: Option<String>,
    pub link_layer: LinkLayer,
    /// Gbit/s.
    pub rate: Option<f64>,
    pub lid: u16,
    /// Bytes of payload of a packet.
    pub active_mtu: Option<u32>,
    /// Its number among the rails; absent where it is not used.
    pub rail: Option<u16>,
    /// Why it is not used: code and sentence.
    pub reason: Option<Why>,
    pub traffic_class: Option<u8>,
    pub gids: Vec<GidReport>,
    /// Microseconds of a write of 64 KiB to itself.
    pub self_test_us: Option<u64>,
    /// The port that was written to, where it was another one.
    pub self_test_to: Option<String>,
    /// Why that failed.
    pub self_test_error: Option<String>,
    pub counters: BTreeMap<String, u64>,
}

/// An entry of a port's GID table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GidReport {
    pub index: u16,
    pub address: String,
    pub kind: String,
    pub interface: Option<String>,
    /// "chosen", "reserve" (for peers to whom the chosen one does not lead) or "no".
    pub r#use: String,
    /// Why not: code and sentence.
    pub reason: Option<Why>,
}

/// A reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    pub code: String,
    pub sentence: String,
}

impl Why {
    fn new(reason: &rccl_topology::Reason) -> Why {
        Why { code: reason.code().into(), sentence: reason.to_string() }
    }
}

impl Report {
    pub fn new(facts: &Facts, choice: &Choice, findings: Vec<Finding>) -> Report {
        let healthy = !any_error(&findings);
        Report {
            host: facts.name.clone(),
            kernel: facts.kernel.clone(),
            version: facts.version.clone(),
            net: facts.net.clone(),
            settings: facts.settings.clone(),
            container: facts.container.clone(),
            namespaces: facts.namespaces.clone(),
            library: facts.library.clone(),
            locked_memory: facts.memory.clone(),
            devices: facts
                .host
                .devices
                .iter()
                .map(|device| DeviceReport::new(device, facts, choice))
                .collect(),
            interfaces: facts.host.interfaces.clone(),
            verdict: verdict(facts, choice, &findings),
            findings,
            healthy,
        }
    }
}

fn verdict(facts: &Facts, choice: &Choice, findings: &[Finding]) -> String {
    let otherwise = match facts.net.as_str() {
        "verbs" => "joining ranks on other hosts fails, because RCCL_NET=verbs demands RDMA",
        _ => "ranks on other hosts are reached over TCP",
    };
    let worked = |rail: &&rccl_topology::Rail| {
        let device = facts.devices.iter().find(|device| device.name == rail.device);
        device.is_some_and(|device| {
            device.tests.iter().any(|test| test.port == rail.port && test.outcome.is_ok())
        })
    };
    let rails: Vec<String> = choice
        .rails
        .iter()
        .filter(worked)
        .map(|rail| format!("{} port {} by {}", rail.device, rail.port, rail.addresses[0].gid))
        .collect();
    if facts.is_off() {
        format!("RDMA is switched off by settings: {otherwise}.")
    } else if facts.host.devices.is_empty() && facts.idle_hardware.is_empty() {
        format!("There is no RDMA device on this host: {otherwise}.")
    } else if rails.is_empty() {
        format!("RDMA does not work on this host: {otherwise}.")
    } else if any_error(findings) {
        format!("RDMA works in part on this host, see the errors; usable: {}.", rails.join(", "))
    } else {
        format!("RDMA works on this host: {}.", rails.join(", "))
    }
}

impl DeviceReport {
    fn new(device: &Device, facts: &Facts, choice: &Choice) -> DeviceReport {
        let opened = facts.devices.iter().find(|opened| opened.name == device.name);
        let whole =
            choice.rejected.iter().find(|rejected| rejected.device == device.name && rejected.port.is_none());
        let error = opened.and_then(|opened| opened.error.clone());
        let missing =
            || facts.library.error.is_none().then(|| facts.unusable.get(&device.name).cloned()).flatten();
        DeviceReport {
            name: device.name.clone(),
            kind: device.kind.to_string(),
            driver: device.driver.clone(),
            board: device.board.clone(),
            firmware: device.firmware.clone(),
            pci: device.pci.clone(),
            numa_node: device.numa_node,
            file: opened.map(|opened| opened.file.clone()),
            error: whole.map(|rejected| rejected.reason.to_string()).or(error).or_else(missing),
            ports: device.ports.iter().map(|port| PortReport::new(device, port, opened, choice)).collect(),
        }
    }
}

impl PortReport {
    fn new(device: &Device, port: &Port, opened: Option<&Opened>, choice: &Choice) -> PortReport {
        let rail = choice.rails.iter().find(|rail| rail.device == device.name && rail.port == port.number);
        let of_port = |rejected: &&rccl_topology::Rejected| {
            rejected.device == device.name && rejected.port == Some(port.number)
        };
        let reason = choice.rejected.iter().filter(of_port).find(|rejected| rejected.gid.is_none());
        let gid = |entry: &GidEntry| {
            let place = rail.and_then(|rail| {
                rail.addresses.iter().position(|address| u16::from(address.index) == entry.index)
            });
            let rejected = choice
                .rejected
                .iter()
                .filter(of_port)
                .find(|rejected| rejected.gid.is_some_and(|(index, _)| index == entry.index));
            GidReport {
                index: entry.index,
                address: entry.gid.to_string(),
                kind: entry.kind.to_string(),
                interface: entry.interface.clone(),
                r#use: match place {
                    Some(0) => "chosen",
                    Some(_) => "reserve",
                    None => "no",
                }
                .into(),
                reason: rejected.map(|rejected| Why::new(&rejected.reason)),
            }
        };
        let asked = opened.and_then(|opened| opened.ports.iter().find(|known| known.number == port.number));
        let test = opened.and_then(|opened| opened.tests.iter().find(|test| test.port == port.number));
        PortReport {
            number: port.number,
            state: port.state.to_string(),
            physical: port.physical.clone(),
            link_layer: port.link_layer,
            rate: port.rate,
            lid: port.lid,
            active_mtu: asked.map(|asked| asked.active_mtu),
            rail: rail.map(|rail| rail.number),
            reason: reason.map(|rejected| Why::new(&rejected.reason)),
            traffic_class: rail
                .filter(|rail| rail.traffic_class != TrafficClass::Unset)
                .map(|rail| rail.traffic_class.value()),
            gids: port.gids.iter().map(gid).collect(),
            self_test_us: test.and_then(|test| test.outcome.clone().ok()),
            self_test_to: test.and_then(|test| test.to.clone()),
            self_test_error: test.and_then(|test| test.outcome.clone().err()),
            counters: port.counters.clone(),
        }
    }
}
