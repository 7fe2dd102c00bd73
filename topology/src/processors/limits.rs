//! What of a host's processors and memory this process may use.
//!
//! Formats: proc(5), cgroups(7), and admin-guide/cgroup-v2.rst and cgroup-v1 of the Linux kernel's documentation. A limit of
//! a control group holds for all groups inside of it, so the tightest on the way up counts. In a container the way ends
//! where its mount does: what is set above cannot be seen.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::list;
use crate::sysfs::{parsed, text};
use crate::system::CpuSet;

/// What this process may use; absent where nothing limits it, or where it cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Limits {
    /// The processors that it may run on, by its affinity and the control group's set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<CpuSet>,
    /// The processors of its control group (cpuset).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<CpuSet>,
    /// Processors' worth of time that its control group gets: 1.5 is three halves of one processor's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<f64>,
    /// Bytes of memory that its control group may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

impl Limits {
    pub(super) fn discover(root: &Path) -> Limits {
        let groups = Groups::of_this_process(root);
        let status = text(&root.join("proc/self/status")).unwrap_or_default();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Limits {
            affinity: allowed.and_then(CpuSet::from_list),
            cpuset: groups.nearest("cpuset", |group| {
                let effective = ["cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"];
                effective.iter().find_map(|file| list(&group.join(file)))
            }),
            quota: groups.tightest("cpu", quota),
            memory: groups.tightest("memory", memory),
        }
    }
}

/// Version 2: "150000 100000", or "max 100000". Version 1: a file each, and -1 for no limit.
fn quota(group: &Path) -> Option<f64> {
    let (quota, period): (f64, f64) = match text(&group.join("cpu.max")) {
        Some(words) => {
            let (quota, period) = words.split_once(' ')?;
            (quota.parse().ok()?, period.parse().ok()?)
        }
        None => (parsed(&group.join("cpu.cfs_quota_us"))?, parsed(&group.join("cpu.cfs_period_us"))?),
    };
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// Bytes, or in version 2 "max". Version 1 says the largest number of whole pages where there is no limit.
fn memory(group: &Path) -> Option<u64> {
    const NO_LIMIT: u64 = 1 << 62;
    let bytes = parsed(&group.join("memory.max")).or_else(|| parsed(&group.join("memory.limit_in_bytes")))?;
    (bytes < NO_LIMIT).then_some(bytes)
}

/// The control groups that this process is in.
struct Groups(Vec<Group>);

struct Group {
    /// Controllers of version 1; `None` for version 2, where all that there are have files in one place.
    controllers: Option<String>,
    /// The group's directories, from its own up to where its file system is mounted.
    way: Vec<PathBuf>,
}

impl Groups {
    fn of_this_process(root: &Path) -> Groups {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
        let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::read).collect();
        Groups(groups.lines().filter_map(|line| Group::read(line, &mounts, root)).collect())
    }

    /// The directories that may have a controller's files: those of version 1 for the controllers that it has.
    fn ways(&self, controller: &str) -> impl Iterator<Item = &[PathBuf]> {
        let has = move |group: &&Group| match &group.controllers {
            Some(names) => names.split(',').any(|name| name == controller),
            None => true,
        };
        self.0.iter().filter(has).map(|group| &group.way[..])
    }

    fn nearest<T>(&self, controller: &str, read: impl Fn(&Path) -> Option<T>) -> Option<T> {
        self.ways(controller).flatten().find_map(|group| read(group))
    }

    fn tightest<T: PartialOrd>(&self, controller: &str, read: impl Fn(&Path) -> Option<T>) -> Option<T> {
        let limits = self.ways(controller).flatten().filter_map(|group| read(group));
        limits.reduce(|one, other| if other < one { other } else { one })
    }
}

impl Group {
    /// "4:memory:/user.slice", and "0::/user.slice" in version 2.
    fn read(line: &str, mounts: &[Mount], root: &Path) -> Option<Group> {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let controllers = (number != "0" || !controllers.is_empty()).then(|| controllers.to_owned());
        let mount = mounts.iter().find(|mount| match &controllers {
            // Controllers that are mounted together have one line here, too.
            Some(names) => names.split(',').any(|name| mount.options.split(',').any(|option| option == name)),
            None => mount.is_version_2,
        })?;
        // A group outside of what is mounted here ("/../other") has no directory.
        let inside = Path::new(path).strip_prefix(&mount.shown).ok()?;
        let top = root.join(mount.place.trim_start_matches('/'));
        let own = top.join(inside);
        let way = own.ancestors().take_while(|group| group.starts_with(&top)).map(Path::to_owned).collect();
        Some(Group { controllers, way })
    }
}

/// A mounted file system of control groups.
struct Mount {
    is_version_2: bool,
    /// Which group is shown there.
    shown: String,
    place: String,
    /// Of version 1: its controllers, among others.
    options: String,
}

impl Mount {
    /// "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset"
    fn read(line: &str) -> Option<Mount> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut kind = kind.split(' ');
        let is_version_2 = match kind.next()? {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        Some(Mount {
            is_version_2,
            shown: place.next()?.to_owned(),
            place: place.next()?.to_owned(),
            options: kind.nth(1)?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system with these files.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    const VERSION_2: &str =
        "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let root = tree(&[
            ("proc/self/cgroup", "0::/job/step\n"),
            ("proc/self/mountinfo", VERSION_2),
            ("sys/fs/cgroup/job/step/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/job/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/job/step/memory.max", "8589934592\n"),
            ("sys/fs/cgroup/job/memory.max", "4294967296\n"),
            ("sys/fs/cgroup/job/step/cpuset.cpus.effective", "2-3,8\n"),
            ("sys/fs/cgroup/cpuset.cpus.effective", "0-15\n"),
            ("proc/self/status", "Name:\tcat\nCpus_allowed:\t8\nCpus_allowed_list:\t3\n"),
        ]);
        let limits = Limits::discover(root.path());
        let expected = Limits {
            affinity: CpuSet::from_list("3"),
            cpuset: CpuSet::from_list("2-3,8"),
            quota: Some(1.5),
            memory: Some(4 << 30),
        };
        assert_eq!(limits, expected);
    }

    /// As Docker does it: each controller is mounted with the container's group as its root.
    #[test]
    fn version_1_in_a_container() {
        let root = tree(&[
            (
                "proc/self/cgroup",
                "9:cpuset:/docker/ab\n4:cpu,cpuacct:/docker/ab\n3:memory:/docker/ab\n1:name=systemd:/docker/ab\n",
            ),
            (
                "proc/self/mountinfo",
                "35 30 0:31 /docker/ab /sys/fs/cgroup/cpuset ro,nosuid - cgroup cgroup rw,cpuset\n\
                 36 30 0:32 /docker/ab /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
                 37 30 0:33 /docker/ab /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory\n",
            ),
            ("sys/fs/cgroup/cpuset/cpuset.cpus", "0-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
        ]);
        let limits = Limits::discover(root.path());
        let expected = Limits {
            affinity: None,
            cpuset: CpuSet::from_list("0-1"),
            quota: Some(0.5),
            memory: Some(512 << 20),
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn no_limit_is_none() {
        let root = tree(&[
            ("proc/self/cgroup", "5:cpu:/\n4:memory:/api\n0::/\n"),
            (
                "proc/self/mountinfo",
                "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                 35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                 23 27 0:22 / /sys rw,relatime - sysfs sysfs rw\n",
            ),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/api/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(Limits::discover(root.path()), Limits::default());
    }

    #[test]
    fn a_group_that_is_not_mounted_here_is_not_read() {
        let root = tree(&[
            ("proc/self/cgroup", "0::/../other\n"),
            ("proc/self/mountinfo", &VERSION_2.replace(" / ", " /mine ")),
            ("sys/fs/cgroup/memory.max", "4096\n"),
        ]);
        assert_eq!(Limits::discover(root.path()), Limits::default());
        assert_eq!(Limits::discover(tree(&[]).path()), Limits::default());
    }
}
