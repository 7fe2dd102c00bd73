//! The report as people read it.

use super::finding::{Finding, Severity};
use super::report::{DeviceReport, PortReport, Report};
use std::fmt::Write;

/// Writing to a string cannot fail.
macro_rules! line {
    ($text:expr, $($words:tt)*) => {{
        let _ = writeln!($text, $($words)*);
    }};
}

/// One host, with its findings and the verdict at the end.
pub fn host(report: &Report) -> String {
    let mut text = String::new();
    let inside =
        report.container.as_ref().map_or_else(String::new, |word| format!(", in a container ({word})"));
    line!(text, "host {}, kernel {}, rccl {}{inside}", report.host, report.kernel, report.version);
    if !report.settings.is_empty() {
        let settings: Vec<String> =
            report.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        line!(text, "  settings  {}", settings.join(" "));
    }
    if !report.devices.is_empty() {
        line!(text, "  library   {}", library(report));
        line!(text, "  memory    {}", memory(report));
    }
    for device in &report.devices {
        line!(text, "");
        describe(&mut text, device, report);
    }
    line!(text, "");
    findings(&mut text, &report.findings);
    line!(text, "{}", report.verdict);
    text
}

/// The findings, each with what was seen, what it means and what to do.
pub fn findings(text: &mut String, findings: &[Finding]) {
    for finding in findings {
        let word = match finding.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
            Severity::Note => "NOTE",
        };
        line!(text, "{word:<8} {}: {}", finding.subject, finding.seen);
        line!(text, "         means   {}", finding.meaning);
        if !finding.remedy.is_empty() {
            line!(text, "         remedy  {}", finding.remedy);
        }
        line!(text, "");
    }
}

fn library(report: &Report) -> String {
    let library = &report.library;
    if let Some(error) = library.error.as_ref().or(library.list_error.as_ref()) {
        return error.clone();
    }
    let fork = match library.fork.as_deref() {
        Some("unneeded") => "forks are safe by the kernel",
        Some("enabled") => "forks are safe by the library",
        _ => "forks are not safe",
    };
    format!("{}; {fork}", library.path)
}

fn memory(report: &Report) -> String {
    let memory = &report.locked_memory;
    match memory.soft {
        None => "any amount may be locked".into(),
        Some(limit) if memory.exempt => {
            format!("the limit of {} KiB of locked memory does not bind this process", limit >> 10)
        }
        Some(limit) => format!("{} KiB may be locked, {} are", limit >> 10, memory.pinned >> 10),
    }
}

fn describe(text: &mut String, device: &DeviceReport, report: &Report) {
    let mut words = vec![device.kind.clone()];
    words.extend(device.driver.clone());
    words.extend(device.board.clone());
    words.extend(device.firmware.as_ref().map(|version| format!("firmware {version}")));
    words.extend(device.pci.as_ref().map(|address| format!("PCI {address}")));
    words.extend(device.numa_node.map(|node| format!("NUMA node {node}")));
    words.extend(device.file.clone());
    line!(text, "device {}: {}", device.name, words.join(", "));
    if let Some(error) = &device.error {
        line!(text, "  not used: {error}");
    }
    for port in &device.ports {
        describe_port(text, port, report);
    }
}

fn describe_port(text: &mut String, port: &PortReport, report: &Report) {
    let physical = port.physical.as_ref().map_or_else(String::new, |words| format!(" ({words})"));
    let mut words = vec![format!("{}{physical}", port.state), port.link_layer.to_string()];
    words.extend(port.rate.map(|rate| format!("{rate} Gbit/s")));
    words.extend((port.lid != 0).then(|| format!("LID {}", port.lid)));
    words.extend(port.active_mtu.map(|mtu| format!("packets of {mtu} bytes")));
    words.extend(port.traffic_class.map(|class| format!("traffic class {class}")));
    let mut names: Vec<&String> = port.gids.iter().filter_map(|gid| gid.interface.as_ref()).collect();
    names.dedup();
    for interface in report.interfaces.iter().filter(|interface| names.contains(&&interface.name)) {
        let state = interface.state.as_deref().unwrap_or("of unknown state");
        let mtu = interface.mtu.map_or_else(String::new, |mtu| format!(", MTU {mtu}"));
        let bond = interface
            .bond_mode
            .as_ref()
            .map_or_else(String::new, |mode| format!(", bond {mode} of {}", interface.lower.join(" and ")));
        words.push(format!("{} {state}{mtu}{bond}", interface.name));
    }
    line!(text, "  port {}: {}", port.number, words.join(", "));
    if let Some(reason) = &port.reason {
        line!(text, "    not used: {}", reason.sentence);
    }
    for gid in &port.gids {
        let interface = gid.interface.as_deref().unwrap_or("");
        let used = match (gid.r#use.as_str(), &gid.reason, port.rail) {
            ("chosen", _, Some(rail)) => format!("chosen, rail {rail}"),
            ("reserve", ..) => "usable, for peers to whom the chosen one does not lead".into(),
            (_, Some(reason), _) => format!("no: {}", reason.sentence),
            _ => String::new(),
        };
        let line =
            format!("    GID {:<3} {:<22} {:<10} {interface:<10} {used}", gid.index, gid.address, gid.kind);
        line!(text, "{}", line.trim_end());
    }
    if let Some(time) = port.self_test_us {
        let to = port.self_test_to.as_deref().unwrap_or("itself");
        line!(text, "    test: 64 KiB were registered and written from the port to {to}, in {time} us");
    }
    if let Some(error) = &port.self_test_error {
        line!(text, "    test failed: {error}");
    }
}
