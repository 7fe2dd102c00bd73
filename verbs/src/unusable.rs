//! Devices that the kernel has and that libibverbs does not list.
//!
//! libibverbs leaves out, without a word, what it cannot serve. Where no device is listed, these are the reasons.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::device::Device;

/// A device in sysfs that a program cannot use, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnusableDevice {
    /// The kernel's name of it.
    pub name: String,
    /// What is missing.
    pub missing: Missing,
}

/// What a program would need to use a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// The kernel's module that lets programs use devices.
    Uverbs,
    /// The device file.
    File(PathBuf),
    /// The part of libibverbs that drives this kind of device.
    Provider,
}

/// `rxe0 has no device file /dev/infiniband/uverbs0: …`
impl fmt::Display for UnusableDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.missing {
            Missing::Uverbs => {
                write!(f, "{name} is not offered to programs: load the kernel's module ib_uverbs")
            }
            Missing::File(path) => write!(
                f,
                "{name} has no device file {}: in a container pass --device=/dev/infiniband",
                path.display()
            ),
            Missing::Provider => write!(
                f,
                "{name} has no provider library: install it (Debian: ibverbs-providers, Red Hat: libibverbs, else the \
                 vendor's), where libibverbs looks for it (/etc/libibverbs.d)"
            ),
        }
    }
}

/// Those of sysfs that are not among `listed`, by name.
pub(crate) fn find(listed: &[Device]) -> Vec<UnusableDevice> {
    let listed: Vec<&str> = listed.iter().map(Device::name).collect();
    find_in(Path::new("/sys/class"), Path::new("/dev/infiniband"), &listed)
}

fn find_in(classes: &Path, files: &Path, listed: &[&str]) -> Vec<UnusableDevice> {
    let entries = |class: &str| {
        let found = fs::read_dir(classes.join(class)).into_iter().flatten().flatten();
        let mut names: Vec<String> = found.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    };
    let is_of = |uverbs: &str, name: &str| {
        let path = classes.join("infiniband_verbs").join(uverbs).join("ibdev");
        fs::read_to_string(path).is_ok_and(|text| text.trim() == name)
    };
    let uverbs = entries("infiniband_verbs");
    let unlisted = entries("infiniband").into_iter().filter(|name| !listed.contains(&name.as_str()));
    unlisted
        .map(|name| {
            let missing = match uverbs.iter().find(|uverbs| is_of(uverbs, &name)) {
                None => Missing::Uverbs,
                Some(uverbs) if !files.join(uverbs).exists() => Missing::File(files.join(uverbs)),
                Some(_) => Missing::Provider,
            };
            UnusableDevice { name, missing }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_that_is_not_listed_has_a_reason() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for name in ["mlx5_0", "mlx5_1", "rxe0", "siw0"] {
            make(&format!("class/infiniband/{name}/node_type"), "1: CA\n");
        }
        make("class/infiniband_verbs/abi_version", "6\n");
        for (number, name) in [(0, "mlx5_0"), (1, "mlx5_1"), (2, "rxe0")] {
            make(&format!("class/infiniband_verbs/uverbs{number}/ibdev"), &format!("{name}\n"));
        }
        make("dev/uverbs0", "");
        make("dev/uverbs2", "");
        let files = root.path().join("dev");
        let found = find_in(&root.path().join("class"), &files, &["mlx5_0"]);
        let expected = [
            ("mlx5_1", Missing::File(files.join("uverbs1"))),
            ("rxe0", Missing::Provider),
            ("siw0", Missing::Uverbs),
        ];
        let expected = expected.map(|(name, missing)| UnusableDevice { name: name.into(), missing });
        assert_eq!(found, expected);
        assert!(found[0].to_string().contains("uverbs1"));
        assert_eq!(find_in(&root.path().join("nowhere"), &files, &[]), []);
    }
}
