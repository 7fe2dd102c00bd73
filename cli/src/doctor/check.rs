//! What is wrong with a host, as a pure function of the facts.
//!
//! A finding is an error where it keeps RDMA from working: then the command's status says so. What a setting asks for
//! is no error, nor is a machine without RDMA, unless `RCCL_NET=verbs` demands it.

mod access;
mod network;
mod ports;

use super::facts::Facts;
use super::finding::{Finding, Severity};
use rccl_topology::Choice;

/// Everything worth saying, the worst first.
pub fn check(facts: &Facts, choice: &Choice) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !facts.is_off() {
        access::check(facts, choice, &mut findings);
        ports::check(facts, choice, &mut findings);
        network::check(facts, choice, &mut findings);
    }
    presence(facts, choice, &mut findings);
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// How bad it is that there is no RDMA.
fn without_rdma(facts: &Facts) -> Severity {
    if facts.net == "verbs" { Severity::Error } else { Severity::Note }
}

/// What it means that there is none.
fn meaning_of_none(facts: &Facts) -> &'static str {
    match facts.net.as_str() {
        "verbs" => "RCCL_NET=verbs demands RDMA, so joining ranks on other hosts fails",
        _ => "ranks on other hosts are reached over TCP",
    }
}

fn presence(facts: &Facts, choice: &Choice, findings: &mut Vec<Finding>) {
    let about = |severity, code, seen: &str, remedy: &str| {
        Finding::new(severity, code, "host", seen, meaning_of_none(facts), remedy)
    };
    if facts.is_off() {
        let severity = without_rdma(facts);
        let remedy = "unset RCCL_IB_DISABLE, NCCL_IB_DISABLE or RCCL_NET to use RDMA";
        findings.push(about(severity, "switched-off", "RDMA is switched off by settings", remedy));
    } else if facts.host.devices.is_empty() && facts.idle_hardware.is_empty() {
        let remedy = match (&facts.container, facts.namespaces.as_deref()) {
            (Some(_), Some("exclusive")) => {
                "the kernel gives each network namespace its own RDMA devices: `rdma dev set NAME netns NAMESPACE` on the \
                 host, or --network=host; and pass --device=/dev/infiniband"
            }
            (Some(_), _) => {
                "if the host has RDMA devices, pass them: --device=/dev/infiniband for docker and podman, a device \
                 plugin (rdma/hca) for Kubernetes"
            }
            (None, _) => {
                "with an adapter, load its driver (`lspci -k` names it); `modprobe rdma_rxe && rdma link add rxe0 type \
                 rxe netdev eth0` makes a slow device in software"
            }
        };
        findings.push(about(
            without_rdma(facts),
            "no-device",
            "there is no RDMA device on this host",
            remedy,
        ));
    } else if choice.rails.is_empty() && !facts.host.devices.is_empty() {
        let seen = "no port of any RDMA device can be used";
        findings.push(about(Severity::Error, "no-rail", seen, "see the reasons at the ports above"));
    }
}
