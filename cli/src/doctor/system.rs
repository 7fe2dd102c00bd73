//! What the system's files tell beside devices: limits, container, control group, hardware, packet filter.
//!
//! Everything that reads files takes the root beneath which they lie, `/` but for tests.

use super::facts::{CgroupLimit, Locked};
use rccl_topology::Host;
use rustix::process::{Resource, getrlimit};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A file's content without blanks around it.
pub fn text(root: &Path, path: &str) -> Option<String> {
    Some(fs::read_to_string(root.join(path)).ok()?.trim().to_owned())
}

/// The same for all processes that share a kernel and a network namespace.
pub fn identity(root: &Path) -> String {
    let namespace = fs::read_link(root.join("proc/self/ns/net")).unwrap_or_default();
    let boot = text(root, "proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("{boot} {}", namespace.display())
}

/// This process's limits on locked memory.
pub fn locked() -> Locked {
    let limits = getrlimit(Resource::Memlock);
    let now = rccl_verbs::LockedMemory::now();
    Locked { soft: limits.current, hard: limits.maximum, pinned: now.pinned, exempt: now.exempt }
}

/// The container that this process is in, by the marks that its maker leaves.
pub fn container(root: &Path) -> Option<String> {
    let exists = |path: &str| root.join(path).exists();
    // The first process's environment is readable for its own user only; systemd repeats the word in a file.
    let word = text(root, "run/systemd/container").filter(|word| !word.is_empty());
    if exists("var/run/secrets/kubernetes.io") || exists("run/secrets/kubernetes.io") {
        Some("kubernetes".into())
    } else if exists(".dockerenv") {
        Some("docker".into())
    } else if exists("run/.containerenv") {
        Some("podman".into())
    } else if exists(".singularity.d") {
        Some("singularity".into())
    } else {
        word
    }
}

/// Whether all network namespaces see all RDMA devices (rdma-system(8)).
pub fn namespaces(root: &Path) -> Option<String> {
    match text(root, "sys/module/ib_core/parameters/netns_mode")?.as_str() {
        "Y" | "1" => Some("shared".into()),
        "N" | "0" => Some("exclusive".into()),
        _ => None,
    }
}

/// The limits that `rdma.max` of this process's control group sets (Documentation/admin-guide/cgroup-v2.rst, RDMA).
pub fn cgroup(root: &Path) -> BTreeMap<String, CgroupLimit> {
    let groups = text(root, "proc/self/cgroup").unwrap_or_default();
    let path_of = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) =
            (parts.next()?, parts.next()?, parts.next()?.trim_start_matches('/'));
        match (number, controllers) {
            ("0", "") => Some(format!("sys/fs/cgroup/{path}")),
            (_, "rdma") => Some(format!("sys/fs/cgroup/rdma/{path}")),
            _ => None,
        }
    };
    let limits = groups.lines().filter_map(path_of).find_map(|path| text(root, &format!("{path}/rdma.max")));
    limits.unwrap_or_default().lines().filter_map(cgroup_line).collect()
}

/// `mlx4_0 hca_handle=2 hca_object=2000`, or `max` for no limit.
fn cgroup_line(line: &str) -> Option<(String, CgroupLimit)> {
    let mut words = line.split_whitespace();
    let device = words.next()?.to_owned();
    let mut limit = CgroupLimit::default();
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        match name {
            "hca_handle" => limit.handles = value.parse().ok(),
            "hca_object" => limit.objects = value.parse().ok(),
            _ => {}
        }
    }
    (limit != CgroupLimit::default()).then_some((device, limit))
}

/// PCI functions that can surely do RDMA and have no RDMA device: InfiniBand controllers by their class, and adapters
/// whose drivers are of families that all do RoCE.
pub fn idle_hardware(root: &Path, host: &Host) -> BTreeMap<String, String> {
    const INFINIBAND: &str = "0x0207";
    const ROCE: [&str; 4] = ["mlx5_core", "mlx4_core", "bnxt_en", "irdma"];
    let directory = root.join("sys/bus/pci/devices");
    let functions = fs::read_dir(&directory).into_iter().flatten().flatten();
    let driver_of = |path: &Path| {
        let target = fs::read_link(path.join("driver")).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    };
    let idle = |entry: fs::DirEntry| {
        let address = entry.file_name().into_string().ok()?;
        let class = fs::read_to_string(entry.path().join("class")).unwrap_or_default();
        let driver = driver_of(&entry.path());
        let able = class.starts_with(INFINIBAND) || ROCE.contains(&driver.as_deref().unwrap_or_default());
        let used = host.devices.iter().any(|device| device.pci.as_ref() == Some(&address));
        (able && !used).then(|| (address, driver.unwrap_or_else(|| "no driver".into())))
    };
    functions.filter_map(idle).collect()
}

/// What the packet filter does with UDP to port 4791, as far as its rules tell; `None` where they cannot be read or
/// nothing speaks against it. Only software devices' packets pass it: an adapter takes its own before the kernel.
pub fn filter() -> Option<String> {
    let nft = output(&["nft", "list", "ruleset"]);
    let iptables = output(&["iptables-save", "-t", "filter"]);
    nft.and_then(|rules| filter_of_nft(&rules))
        .or_else(|| iptables.and_then(|rules| filter_of_iptables(&rules)))
}

/// Reads `nft list ruleset`: a rule that drops the port, or a chain for input that drops what no rule accepts.
fn filter_of_nft(rules: &str) -> Option<String> {
    let refuses = |line: &str| line.contains("drop") || line.contains("reject");
    if let Some(rule) = rules.lines().find(|line| line.contains("4791") && refuses(line)) {
        return Some(format!("a rule of nftables: {}", rule.trim()));
    }
    let drops = rules.lines().any(|line| line.contains("hook input") && line.contains("policy drop"));
    (drops && !rules.contains("4791"))
        .then(|| "nftables drops incoming packets by default, and no rule names port 4791".into())
}

/// Reads `iptables-save -t filter` the same way.
fn filter_of_iptables(rules: &str) -> Option<String> {
    let refuses = |line: &str| line.contains("-j DROP") || line.contains("-j REJECT");
    if let Some(rule) = rules.lines().find(|line| line.contains("4791") && refuses(line)) {
        return Some(format!("a rule of iptables: {}", rule.trim()));
    }
    (rules.lines().any(|line| line.starts_with(":INPUT DROP")) && !rules.contains("4791"))
        .then(|| "iptables drops incoming packets by default, and no rule names port 4791".into())
}

/// What a command prints, if it ends well within 2 s.
fn output(command: &[&str]) -> Option<String> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // Read beside, since a full pipe would keep the command from ending.
    let mut pipe = child.stdout.take()?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).map(|_| text)
    });
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return reader.join().ok()?.ok(),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                // It may have ended meanwhile. Nobody waits for the reader, whose pipe ends with the command.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn a_control_groups_limits_are_found_in_both_versions() {
        let limits = "mlx5_0 hca_handle=2 hca_object=2000\nmlx5_1 hca_handle=max hca_object=max\n";
        let second = tree(&[("proc/self/cgroup", "0::/jobs/7\n"), ("sys/fs/cgroup/jobs/7/rdma.max", limits)]);
        let expected = CgroupLimit { handles: Some(2), objects: Some(2000) };
        assert_eq!(cgroup(second.path()), BTreeMap::from([("mlx5_0".into(), expected)]));
        let first =
            tree(&[("proc/self/cgroup", "4:rdma:/jobs\n"), ("sys/fs/cgroup/rdma/jobs/rdma.max", limits)]);
        assert_eq!(cgroup(first.path()), cgroup(second.path()));
        assert!(cgroup(tree(&[]).path()).is_empty());
    }

    #[test]
    fn containers_are_known_by_their_marks() {
        let found = |file| container(tree(&[(file, "")]).path());
        assert_eq!(found(".dockerenv").as_deref(), Some("docker"));
        assert_eq!(found("run/.containerenv").as_deref(), Some("podman"));
        assert_eq!(found("run/secrets/kubernetes.io/x").as_deref(), Some("kubernetes"));
        assert_eq!(container(tree(&[("run/systemd/container", "lxc\n")]).path()).as_deref(), Some("lxc"));
        assert_eq!(found("etc/hostname"), None);
        assert_eq!(
            namespaces(tree(&[("sys/module/ib_core/parameters/netns_mode", "N\n")]).path()).unwrap(),
            "exclusive"
        );
    }

    #[test]
    fn adapters_without_a_device_are_found() {
        let root = tree(&[
            ("sys/bus/pci/devices/0000:3b:00.0/class", "0x020700\n"),
            ("sys/bus/pci/devices/0000:3c:00.0/class", "0x020000\n"),
            ("sys/bus/pci/devices/0000:00:1f.0/class", "0x060100\n"),
        ]);
        let link = root.path().join("sys/bus/pci/devices/0000:3c:00.0/driver");
        std::os::unix::fs::symlink("../../drivers/mlx5_core", link).unwrap();
        let found = idle_hardware(root.path(), &Host::default());
        let expected = [("0000:3b:00.0", "no driver"), ("0000:3c:00.0", "mlx5_core")];
        assert_eq!(found, expected.map(|(at, driver)| (at.to_owned(), driver.to_owned())).into());
    }

    #[test]
    fn packet_filters_are_read() {
        let drops = "table inet f {\n chain i {\n  type filter hook input priority 0; policy drop;\n }\n}\n";
        assert!(filter_of_nft(drops).unwrap().contains("by default"));
        assert_eq!(filter_of_nft(&drops.replace(" }\n}", "  udp dport 4791 accept\n }\n}")), None);
        assert!(filter_of_nft("  udp dport 4791 drop\n").unwrap().contains("udp dport 4791 drop"));
        assert_eq!(
            filter_of_nft("table inet f {\n chain i {\n type filter hook input; policy accept;\n }\n}"),
            None
        );
        assert!(filter_of_iptables("*filter\n:INPUT DROP [0:0]\nCOMMIT\n").is_some());
        assert!(filter_of_iptables("-A INPUT -p udp -m udp --dport 4791 -j REJECT\n").is_some());
        assert_eq!(filter_of_iptables(":INPUT ACCEPT [0:0]\n"), None);
        assert_eq!(output(&["/nowhere/nft"]), None);
        assert_eq!(output(&["echo", "rules"]).as_deref(), Some("rules\n"));
    }
}
