//! Whether ports and addresses are what RoCE needs: states, tables, packet sizes.

use super::super::facts::Facts;
use super::super::finding::{Finding, Severity};
use rccl_topology::{Choice, GidKind, Host, LinkLayer, Reason, Rejected, roce_mtu};

pub fn check(facts: &Facts, choice: &Choice, findings: &mut Vec<Finding>) {
    let has_rail = !choice.rails.is_empty();
    let of_ports =
        choice.rejected.iter().filter(|rejected| rejected.gid.is_none() && !rejected.reason.is_wanted());
    findings.extend(of_ports.map(|rejected| left_out(&facts.host, choice, rejected, has_rail)));
    if !choice.unmatched.is_empty() {
        let present: Vec<&str> = facts.host.devices.iter().map(|device| device.name.as_str()).collect();
        findings.push(Finding::new(
            if has_rail { Severity::Warning } else { Severity::Error },
            "unmatched-device",
            "RCCL_IB_HCA",
            format!(
                "{} is no port of this host; the devices are {}",
                choice.unmatched.join(", "),
                present.join(", ")
            ),
            "it is passed over",
            "correct RCCL_IB_HCA (or NCCL_IB_HCA)",
        ));
    }
    for rail in &choice.rails {
        let subject = format!("{} port {}", rail.device, rail.port);
        if rail.addresses[0].kind == GidKind::RoceV1 {
            findings.push(Finding::new(
                Severity::Warning,
                "roce-v1",
                subject.as_str(),
                format!("the port has RoCE v1 addresses only, such as {}", rail.addresses[0].gid),
                "v1 passes no router and is spread over no parallel paths; peers that speak v2 only are reached over \
                 TCP",
                "a driver, firmware or mode with RoCE v2 (for mlx4: options mlx4_core roce_mode=2)",
            ));
        }
        if rail.link_layer == LinkLayer::Ethernet {
            findings.extend(packet_size(facts, choice, rail.number, &subject));
        }
    }
    let mut rates: Vec<u64> = choice.rails.iter().filter_map(|rail| Some(rail.rate? as u64)).collect();
    rates.sort_unstable();
    rates.dedup();
    if rates.len() > 1 {
        let rates: Vec<String> = rates.iter().map(u64::to_string).collect();
        findings.push(Finding::new(
            Severity::Note,
            "unequal-rails",
            "host",
            format!("its ports run at different rates: {} Gbit/s", rates.join(", ")),
            "work is dealt to all of them, so that the slow ones hold up the others",
            "RCCL_IB_HCA to name the fast ones",
        ));
    }
}

fn left_out(host: &Host, choice: &Choice, rejected: &Rejected, has_rail: bool) -> Finding {
    let subject = match rejected.port {
        Some(port) => format!("{} port {port}", rejected.device),
        None => rejected.device.clone(),
    };
    let severity = match rejected.reason {
        Reason::Adapter(_) => Severity::Note,
        _ if has_rail => Severity::Warning,
        _ => Severity::Error,
    };
    let remedy = remedy(host, choice, rejected);
    let seen = rejected.reason.to_string();
    Finding::new(
        severity,
        &format!("port-{}", rejected.reason.code()),
        subject,
        seen,
        "it is not used",
        remedy,
    )
}

/// What to do about a port that is not used.
fn remedy(host: &Host, choice: &Choice, rejected: &Rejected) -> String {
    let device = &rejected.device;
    let interface =
        interfaces_of(host, device).into_iter().next().unwrap_or_else(|| "its network interface".into());
    let infiniband = host.devices.iter().any(|known| {
        known.name == *device && known.ports.iter().any(|port| port.link_layer == LinkLayer::InfiniBand)
    });
    match &rejected.reason {
        Reason::PortState { .. } | Reason::NoLid if infiniband => {
            "check the cable, and that a subnet manager runs (opensm; `sminfo` finds it)".into()
        }
        Reason::PortState { .. } => format!("ip link set dev {interface} up; check cable and switch port"),
        Reason::NoGid => {
            format!(
                "give {interface} an address: ip address add 10.7.0.1/24 dev {interface}; a bond's \
                 member has none of its own"
            )
        }
        Reason::NoUsableGid => {
            let of_port = |other: &&Rejected| other.device == *device && other.port == rejected.port;
            let foreign = choice.rejected.iter().filter(of_port).find_map(|other| match &other.reason {
                Reason::ForeignInterface(name) => Some(name.clone()),
                _ => None,
            });
            let wanted: Vec<&Rejected> =
                choice.rejected.iter().filter(of_port).filter(|other| other.reason.is_wanted()).collect();
            match foreign {
                Some(name) => format!(
                    "give this process {name}'s network namespace (docker: --network=host), or the namespace a device of its \
                     own (rdma system set netns exclusive; rdma dev set {device} netns NAME)"
                ),
                None if !wanted.is_empty() => {
                    "settings leave out what there is, see the addresses above: unset them".into()
                }
                None => format!("an IPv4 or global IPv6 address: ip address add 10.7.0.1/24 dev {interface}"),
            }
        }
        Reason::EmptyIndex(_) => "unset RCCL_IB_GID_INDEX: a usable address is then found by itself".into(),
        Reason::NoPartition(_) => "unset RCCL_IB_PKEY, which is an index and not a key".into(),
        Reason::Adapter(_) => String::new(),
        _ => "see what the device's maker says".into(),
    }
}

/// The network interfaces of a device's addresses, and by naming convention where it has none.
fn interfaces_of(host: &Host, device: &str) -> Vec<String> {
    let entries = host.devices.iter().filter(|known| known.name == device).flat_map(|known| &known.ports);
    let mut names: Vec<String> =
        entries.flat_map(|port| &port.gids).filter_map(|entry| entry.interface.clone()).collect();
    names.dedup();
    names
}

fn packet_size(facts: &Facts, choice: &Choice, rail: u16, subject: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(known) = choice.rails.iter().find(|known| known.number == rail) else { return findings };
    let opened = facts.devices.iter().find(|device| device.name == known.device);
    let Some(port) = opened.and_then(|device| device.ports.iter().find(|port| port.number == known.port))
    else {
        return findings;
    };
    let Some(interface) = known.addresses[0].interface.as_deref().and_then(|name| facts.host.interface(name))
    else {
        return findings;
    };
    let (name, Some(mtu)) = (&interface.name, interface.mtu) else { return findings };
    if roce_mtu(mtu).is_some_and(|fits| fits.min(port.max_mtu) > port.active_mtu) {
        findings.push(Finding::new(
            Severity::Warning,
            "mtu-not-taken",
            subject,
            format!("packets of {} bytes, although {name} has an MTU of {mtu}", port.active_mtu),
            "the port has not followed its interface",
            format!("ip link set dev {name} down; ip link set dev {name} up"),
        ));
    } else if port.active_mtu < port.max_mtu.min(4096) {
        findings.push(Finding::new(
            Severity::Warning,
            "small-mtu",
            subject,
            format!(
                "packets of {} bytes, because {name} has an MTU of {mtu}; the port can do {}",
                port.active_mtu, port.max_mtu
            ),
            "more packets than needed, which costs bandwidth",
            format!(
                "ip link set dev {name} mtu 4200 (or 9000), on all hosts, and jumbo frames on the switches"
            ),
        ));
    }
    findings
}
