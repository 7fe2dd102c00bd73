//! Whether tests can go over RDMA.

use std::fs::{OpenOptions, read_dir, read_to_string};
use std::path::PathBuf;

/// Whether this host has an RDMA port that is up, and this process may use it. Says why not, which `RCCL_TEST_RDMA=1`
/// makes a failure.
pub fn rdma() -> bool {
    let Err(why) = find() else { return true };
    assert!(std::env::var_os("RCCL_TEST_RDMA").is_none(), "RCCL_TEST_RDMA is set, and {why}");
    eprintln!("skipped, needs an RDMA device (RCCL_TEST_RDMA=1 demands one): {why}");
    false
}

fn find() -> Result<(), String> {
    let mut ports =
        entries("/sys/class/infiniband").into_iter().flat_map(|device| entries(device.join("ports")));
    let up = |port: PathBuf| read_to_string(port.join("state")).is_ok_and(|state| state.contains("ACTIVE"));
    if !ports.any(up) {
        return Err("there is no RDMA device with an active port".into());
    }
    let devices = entries("/dev/infiniband")
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"uverbs")));
    let opened = devices.map(|path| OpenOptions::new().read(true).write(true).open(path));
    match opened.reduce(Result::or) {
        None => Err("/dev/infiniband has no uverbs device".into()),
        Some(opened) => opened.map(drop).map_err(|error| format!("its file in /dev/infiniband: {error}")),
    }
}

fn entries(directory: impl Into<PathBuf>) -> Vec<PathBuf> {
    let entries = read_dir(directory.into()).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}
