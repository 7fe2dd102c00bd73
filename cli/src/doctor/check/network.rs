//! What the network between hosts does with the packets: priorities, congestion, losses, filters.

use super::super::facts::Facts;
use super::super::finding::{Finding, Severity};
use rccl_topology::{Choice, GidKind, Host, LinkLayer, Rail, TrafficClass};

/// Counters that only go up when packets were lost, came in the wrong order or were not answered (mlx5: NVIDIA's
/// "Understanding mlx5 counters"; rxe: rxe_hw_counters.c of the Linux kernel; bnxt_re, irdma: theirs).
const TROUBLE: [&str; 16] = [
    "out_of_sequence",
    "packet_seq_err",
    "local_ack_timeout_err",
    "implied_nak_seq_err",
    "rnr_nak_retry_err",
    "req_transport_retries_exceeded",
    "roce_adp_retrans",
    "roce_slow_restart",
    "rx_icrc_encapsulated",
    "retry_exceeded_err",
    "retry_rnr_exceeded_err",
    "rcvd_seq_err",
    "out_of_seq_request",
    "to_retransmits",
    "seq_err_naks_rcvd",
    "RxOosPkts",
];

pub fn check(facts: &Facts, choice: &Choice, findings: &mut Vec<Finding>) {
    for rail in &choice.rails {
        traffic_class(facts, rail, findings);
        congestion(facts, rail, findings);
        counters(&facts.host, rail, findings);
    }
    if let (Some(rule), false) = (&facts.filter, choice.rails.is_empty()) {
        findings.push(Finding::new(
            Severity::Warning,
            "packet-filter",
            "UDP port 4791",
            rule.as_str(),
            "packets of RoCE v2 to software devices (rxe) pass the packet filter, which seems to drop them",
            "nft add rule inet filter input udp dport 4791 accept, or iptables -I INPUT -p udp --dport 4791 -j ACCEPT",
        ));
    }
}

fn subject(rail: &Rail) -> String {
    format!("{} port {}", rail.device, rail.port)
}

fn traffic_class(facts: &Facts, rail: &Rail, findings: &mut Vec<Finding>) {
    let wished = facts.settings.get("RCCL_IB_TC").and_then(|value| value.parse::<u8>().ok());
    if let (TrafficClass::Forced(forced), Some(wished)) = (rail.traffic_class, wished)
        && forced != wished
    {
        findings.push(Finding::new(
            Severity::Warning,
            "traffic-class-forced",
            subject(rail),
            format!("the driver puts traffic class {forced} on all packets, while RCCL_IB_TC={wished}"),
            "the setting has no effect",
            format!(
                "echo -1 > /sys/class/infiniband/{}/tc/{}/traffic_class, or unset RCCL_IB_TC",
                rail.device, rail.port
            ),
        ));
    }
    let device = facts.host.devices.iter().find(|device| device.name == rail.device);
    let hardware = device.is_some_and(|device| device.pci.is_some());
    if rail.traffic_class == TrafficClass::Unset && rail.link_layer == LinkLayer::Ethernet && hardware {
        findings.push(Finding::new(
            Severity::Note,
            "traffic-class-unset",
            subject(rail),
            "packets have traffic class 0",
            "on a network that keeps RoCE free of losses for one priority only (PFC, ECN), these packets are not \
             among them",
            "ask who runs the network; often RCCL_IB_TC=104 or 106 (DSCP 26, priority 3), the same on all \
             hosts",
        ));
    }
    let defaults = device.and_then(|device| device.ports.iter().find(|port| port.number == rail.port));
    let mode = defaults.and_then(|port| port.connection_defaults.as_ref()?.roce_mode);
    if mode == Some(GidKind::RoceV1) && rail.addresses[0].kind == GidKind::RoceV2 {
        findings.push(Finding::new(
            Severity::Note,
            "roce-mode",
            subject(rail),
            "default_roce_mode of rdma_cm is RoCE v1, and rccl uses v2",
            "programs that connect by rdma_cm talk v1 here; rccl does not",
            format!("cma_roce_mode -d {} -p {} -m 2", rail.device, rail.port),
        ));
    }
}

fn congestion(facts: &Facts, rail: &Rail, findings: &mut Vec<Finding>) {
    let Some(interface) = rail.addresses[0].interface.as_deref().and_then(|name| facts.host.interface(name))
    else {
        return;
    };
    let (name, known) = (&interface.name, &interface.congestion);
    // DSCP is the upper 6 bits, and its upper 3 are the priority in the usual mapping.
    let class = rail.traffic_class.value();
    let priority = class >> 5;
    let mut warn = |code, seen: String, meaning: &str, remedy: String| {
        findings.push(Finding::new(Severity::Warning, code, name.as_str(), seen, meaning, remedy));
    };
    if known.trust.as_deref() == Some("pcp") && class != 0 {
        warn(
            "trust",
            format!(
                "it takes priorities from VLAN tags (trust pcp), and the packets carry theirs as DSCP {}",
                class >> 2
            ),
            "the packets are treated as of priority 0",
            format!("mlnx_qos -i {name} --trust dscp"),
        );
    }
    if let Some(paused) = known.paused
        && paused >> priority & 1 == 0
    {
        warn(
            "pfc",
            format!(
                "priority {priority}, that of traffic class {class}, is not paused (PFC mask {paused:#04x})"
            ),
            "full buffers on the way lose packets instead of pausing the sender",
            format!(
                "mlnx_qos -i {name} --pfc with a 1 for priority {priority}, and the same on the switches"
            ),
        );
    }
    for (bits, what, folder) in
        [(known.notifying, "tells of", "roce_np"), (known.reacting, "reacts to", "roce_rp")]
    {
        if let Some(bits) = bits
            && bits >> priority & 1 == 0
        {
            warn(
                "ecn",
                format!(
                    "it never {what} congestion at priority {priority}, that of traffic class {class} \
                     ({folder} {bits:#04x})"
                ),
                "senders do not slow down before packets are lost",
                format!("echo 1 > /sys/class/net/{name}/ecn/{folder}/enable/{priority}"),
            );
        }
    }
}

fn counters(host: &Host, rail: &Rail, findings: &mut Vec<Finding>) {
    let device = host.devices.iter().find(|device| device.name == rail.device);
    let Some(port) = device.and_then(|device| device.ports.iter().find(|port| port.number == rail.port))
    else {
        return;
    };
    let value = |name: &str| Some((name.to_owned(), *port.counters.get(name)?));
    let raised: Vec<String> = TROUBLE
        .into_iter()
        .filter_map(value)
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if !raised.is_empty() {
        findings.push(Finding::new(
            Severity::Note,
            "counters",
            subject(rail),
            format!("since the device was started: {}", raised.join(", ")),
            "packets were lost or late at some time; a few are usual, many while a job runs are not",
            "watch them during a run; if they rise, look at PFC, ECN and cables on the way",
        ));
    }
}
