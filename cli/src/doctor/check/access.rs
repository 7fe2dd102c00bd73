//! Whether this process gets at the devices: library, device files, locked memory, control group.

use super::super::facts::{CgroupLimit, Facts, Locked};
use super::super::finding::{Finding, Severity};
use super::meaning_of_none;
use rccl_topology::Choice;

/// Below this links of a few ranks and their staging memory do not fit.
const LEAST_LOCKED: u64 = 16 << 20;

pub fn check(facts: &Facts, choice: &Choice, findings: &mut Vec<Finding>) {
    library(facts, findings);
    hardware(facts, findings);
    devices(facts, choice, findings);
    memory(facts, findings);
    for (device, limit) in &facts.cgroup {
        findings.extend(control_group(device, *limit));
    }
}

fn library(facts: &Facts, findings: &mut Vec<Finding>) {
    let library = &facts.library;
    let has_devices = !facts.host.devices.is_empty();
    if let (Some(error), true) = (&library.error, has_devices) {
        let remedy = "Debian, Ubuntu: apt install libibverbs1 ibverbs-providers; Red Hat, SUSE: dnf or zypper install \
                      libibverbs; or RCCL_IBVERBS=/path/to/libibverbs.so.1";
        findings.push(Finding::new(
            Severity::Error,
            "library",
            "library",
            error.as_str(),
            meaning_of_none(facts),
            remedy,
        ));
    }
    if let (Some(error), true) = (&library.list_error, has_devices) {
        findings.push(Finding::new(
            Severity::Error,
            "library-list",
            "library",
            error.as_str(),
            meaning_of_none(facts),
            "modprobe ib_uverbs; in a container mount the host's /sys",
        ));
    }
    match library.fork.as_deref() {
        Some("enabled" | "unneeded") | None => {}
        Some(answer) => findings.push(Finding::new(
            Severity::Warning,
            "fork",
            library.path.as_str(),
            format!("registered memory is not protected at forks ({answer})"),
            "a program that forks while it has a communicator may send what is no longer in its memory",
            "a kernel of version 5.12 or newer, and rdma-core 35 or newer; or start children by spawn, not by fork",
        )),
    }
}

fn hardware(facts: &Facts, findings: &mut Vec<Finding>) {
    for (address, driver) in &facts.idle_hardware {
        let module = match driver.as_str() {
            "mlx5_core" => "modprobe mlx5_ib",
            "mlx4_core" => "modprobe mlx4_ib",
            "bnxt_en" => "modprobe bnxt_re",
            "irdma" | "ice" => "modprobe irdma roce_ena=1",
            _ => "load the adapter's driver (lspci -k names the modules)",
        };
        findings.push(Finding::new(
            // With a device beside it, it may be left alone on purpose.
            if facts.host.devices.is_empty() { Severity::Error } else { Severity::Note },
            "idle-hardware",
            format!("PCI {address}"),
            format!("an adapter that can do RDMA, driven by {driver}, has no RDMA device"),
            if facts.host.devices.is_empty() { meaning_of_none(facts) } else { "it is not used" },
            module,
        ));
    }
}

fn devices(facts: &Facts, choice: &Choice, findings: &mut Vec<Finding>) {
    let is_rail = |name: &str| choice.rails.iter().any(|rail| rail.device == name);
    for (name, why) in facts.unusable.iter().filter(|(name, _)| is_rail(name)) {
        let remedy = match (&facts.container, why.contains("/dev/infiniband")) {
            (Some(_), true) => {
                "docker, podman: --device=/dev/infiniband; Kubernetes: a device plugin such as rdma/hca"
            }
            (None, true) => "modprobe ib_uverbs, and see that udev runs",
            _ if why.contains("ib_uverbs") => "modprobe ib_uverbs",
            _ => {
                "Debian, Ubuntu: apt install ibverbs-providers; Red Hat, SUSE: libibverbs; else the vendor's package"
            }
        };
        findings.push(Finding::new(
            Severity::Error,
            "device-unusable",
            name.as_str(),
            why.strip_prefix(&format!("{name} ")).unwrap_or(why),
            "this process cannot use the device",
            remedy,
        ));
    }
    for device in facts.devices.iter().filter(|device| is_rail(&device.name)) {
        if let Some(error) = &device.error {
            findings.push(Finding::new(
                Severity::Error,
                "device-open",
                device.name.as_str(),
                error.as_str(),
                "this process cannot use the device",
                format!(
                    "chmod 0666 {}, or give the user's group access; in a container --device=/dev/infiniband",
                    device.file
                ),
            ));
        }
        for test in &device.tests {
            let Err(error) = &test.outcome else { continue };
            findings.push(Finding::new(
                Severity::Error,
                "self-test",
                format!("{} port {}", device.name, test.port),
                format!(
                    "64 KiB could not be registered and written from GID {} to itself: {error}",
                    test.index
                ),
                "the device is there, but does not work for this process",
                "see the reason; `dmesg | tail` and `ibv_rc_pingpong` may tell more",
            ));
        }
    }
}

fn memory(facts: &Facts, findings: &mut Vec<Finding>) {
    let Locked { soft: Some(limit), hard, exempt: false, .. } = facts.memory else { return };
    let (severity, meaning) = match limit {
        ..LEAST_LOCKED => (Severity::Error, "links between ranks and their buffers cannot be registered"),
        _ if limit < 1 << 30 => {
            (Severity::Warning, "larger buffers cannot be registered and are copied instead")
        }
        _ => return,
    };
    // A machine without RDMA does not need to lock anything.
    if facts.host.devices.is_empty() {
        return;
    }
    let raise = match hard {
        Some(hard) if hard < LEAST_LOCKED => "",
        _ => "`ulimit -l unlimited` in this shell; ",
    };
    let lasting = match facts.container.as_deref() {
        Some("docker" | "podman") => "--ulimit memlock=-1 when the container is started",
        Some("kubernetes") => {
            "a limit for containerd (LimitMEMLOCK=infinity in its service), or the capability IPC_LOCK"
        }
        _ => {
            "`* - memlock unlimited` in /etc/security/limits.conf for logins, LimitMEMLOCK=infinity for services (slurmd \
             too, with PropagateResourceLimitsExcept=MEMLOCK)"
        }
    };
    findings.push(Finding::new(
        severity,
        "locked-memory",
        "process",
        format!("this process may lock {} KiB of memory (hard limit: {})", limit >> 10, kib(hard)),
        meaning,
        format!("{raise}{lasting}"),
    ));
}

fn kib(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "none".into(), |bytes| format!("{} KiB", bytes >> 10))
}

fn control_group(device: &str, limit: CgroupLimit) -> Option<Finding> {
    let severity = match limit {
        CgroupLimit { handles: Some(0), .. } | CgroupLimit { objects: Some(..16), .. } => Severity::Error,
        CgroupLimit { objects: Some(..4096), .. } => Severity::Warning,
        _ => return None,
    };
    let number = |limit: Option<u32>| limit.map_or_else(|| "max".into(), |limit: u32| limit.to_string());
    Some(Finding::new(
        severity,
        "control-group",
        device,
        format!(
            "the control group allows hca_handle={} hca_object={}",
            number(limit.handles),
            number(limit.objects)
        ),
        "each rank needs a handle, and some objects for each rank that it talks to",
        format!(
            "echo '{device} hca_handle=max hca_object=max' > rdma.max in the group's directory of /sys/fs/cgroup"
        ),
    ))
}
