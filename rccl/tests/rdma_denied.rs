//! Where RDMA cannot be used, one line says why, with the remedy, and TCP is used instead; `RCCL_NET=verbs` makes it an
//! error with the same words. Where there is none to be used, nothing is said.
//!
//! What is refused is arranged in the ranks' own processes. Most of it wants root, which a rank gives up where it must.

#[path = "common/devices.rs"]
mod devices;
mod processes;

use processes::{Job, join, say, say_failed, task};
use rccl::{Communicator, ReduceOp};
use std::path::Path;
use std::process::Command;

const NOBODY: u32 = 65534;

/// What each rank does; started by the tests below.
#[test]
fn rank() {
    let Some(task) = task() else { return };
    match task.as_str() {
        "closed" => {
            hide("/dev/infiniband", &close_devices());
            become_nobody();
        }
        "no devices" => hide("/sys/class/infiniband", "true"),
        "no device files" => hide("/dev/infiniband", "true"),
        "little memory" => {
            limit_locked_memory(64 << 10);
            become_nobody();
        }
        _ => {}
    }
    let comm = join();
    match calls(&comm) {
        Ok(()) => {
            for (peer, transport, reason) in comm.transports() {
                say(&format!("reached {peer} {transport}: {reason}"));
            }
            comm.finish().expect("leaving");
        }
        Err(error) => say_failed(&error),
    }
}

fn calls(comm: &Communicator) -> rccl::Result<()> {
    for count in [1, 100_000] {
        let mut x = vec![comm.rank() + 1; count];
        comm.all_reduce(&mut x, ReduceOp::Sum)?;
        let ranks = comm.size();
        assert!(x.iter().all(|&x| x == ranks * (ranks + 1) / 2), "{count} elements");
    }
    comm.barrier()
}

/// Covers a directory by an empty one, for this thread and those that it starts, and runs a shell script there.
fn hide(directory: &str, script: &str) {
    // SAFETY: takes integers only.
    let answer = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(answer, 0, "own mounts: {}", std::io::Error::last_os_error());
    let mount = format!(
        "set -e; mount --make-rprivate /; mount -t tmpfs -o mode=755 none {directory}; cd {directory}; {script}"
    );
    assert!(Command::new("sh").args(["-c", &mount]).status().expect("a shell").success(), "{mount}");
}

/// A script that makes the devices' files again, for root only.
fn close_devices() -> String {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir("/dev/infiniband").expect("devices").filter_map(Result::ok);
    files
        .filter(|file| file.file_name().as_encoded_bytes().starts_with(b"uverbs"))
        .map(|file| {
            let device = file.metadata().expect("a device").rdev();
            let (major, minor) = (libc::major(device), libc::minor(device));
            format!("mknod -m 600 {} c {major} {minor}; ", file.file_name().display())
        })
        .collect()
}

fn limit_locked_memory(most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the pointer is valid for the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
}

/// Root may open every file and lock any amount of memory.
fn become_nobody() {
    // SAFETY: takes integers only.
    assert_eq!(unsafe { libc::setgid(NOBODY) }, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: takes integers only.
    assert_eq!(unsafe { libc::setuid(NOBODY) }, 0, "{}", std::io::Error::last_os_error());
    // A process that gives up its rights may not read its own /proc, as it could if it had been started with these.
    // SAFETY: takes integers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }, 0);
}

/// What two ranks said: how they reach each other, or how they failed, and what their logs have.
struct Said {
    lines: Vec<String>,
    warnings: Vec<String>,
}

/// Two ranks that do not share memory and have these settings too.
fn said(task: &str, settings: &[(&str, &str)]) -> Said {
    let logs = tempfile::tempdir().expect("a temporary directory");
    let open = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("permissions");
    };
    open(logs.path());
    let runtime = tempfile::tempdir().expect("a temporary directory");
    open(runtime.path());
    let log = format!("{}/%p", logs.path().display());
    let mut all = vec![("RCCL_SHM_DISABLE", "1"), ("RCCL_DEBUG", "WARN"), ("RCCL_DEBUG_FILE", &log)];
    all.extend(settings);
    let meeting = format!("file://{}/meet", runtime.path().display());
    let mut job = Job::start(2, task, &all, |_, command| {
        // Ranks that are not root make files there.
        command.env("XDG_RUNTIME_DIR", runtime.path()).env("RCCL_COMM_ID", &meeting);
    });
    let words = ["reached", "failed", "lost", "not joined"];
    let lines: Vec<String> = job.ranks.iter().map(|rank| rank.says_any(&words)).collect();
    assert!(lines.iter().any(|line| line.starts_with("not joined")) || job.end().iter().all(|s| s.success()));
    drop(job);
    let logs = std::fs::read_dir(logs.path()).expect("the logs").filter_map(Result::ok);
    let warnings = logs.flat_map(|log| {
        let text = std::fs::read_to_string(log.path()).expect("a log");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    let warnings = warnings.collect();
    let said = Said { lines, warnings };
    println!("{task} {settings:?}:\n  {}\n  {}", said.lines.join("\n  "), said.warnings.join("\n  "));
    said
}

/// Both ranks use TCP, and one line with these words says why; with `RCCL_NET=verbs` it is an error.
fn falls_back(task: &str, settings: &[(&str, &str)], words: &[&str]) {
    let tells = |line: &str| {
        assert!(words.iter().all(|word| line.contains(word)), "{words:?} expected: {line}");
    };
    let Said { lines, warnings } = said(task, settings);
    assert!(lines.iter().all(|line| line.contains(" tcp: ")), "{lines:?}");
    lines.iter().for_each(|line| tells(line));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    tells(&warnings[0]);

    let only: Vec<_> = settings.iter().copied().chain([("RCCL_NET", "verbs")]).collect();
    for line in said(task, &only).lines {
        assert!(line.starts_with("failed RCCL-2005") && line.contains("RCCL_NET=verbs"), "{line}");
        tells(&line);
    }
}

/// Whether there are devices and this process may do what these tests need.
fn able() -> bool {
    // SAFETY: takes nothing.
    let root = unsafe { libc::geteuid() } == 0;
    if devices::rdma() && !root {
        assert!(std::env::var_os("RCCL_TEST_RDMA").is_none(), "RCCL_TEST_RDMA is set, and this is not root");
        eprintln!("skipped: wants root, to mount and to become another user");
    }
    root && devices::rdma()
}

#[test]
fn a_library_that_is_not_there() {
    if devices::rdma() {
        falls_back("", &[("RCCL_IBVERBS", "/nowhere/libibverbs.so.1")], &["/nowhere/libibverbs.so.1"]);
    }
}

#[test]
fn a_library_that_is_cut_short() {
    if !devices::rdma() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("libibverbs.so.1");
    let program = std::fs::read("/proc/self/exe").expect("this program");
    std::fs::write(&path, &program[..4096]).expect("a file");
    let path = path.to_str().expect("a path");
    falls_back("", &[("RCCL_IBVERBS", path)], &[path, "truncated"]);
}

#[test]
fn a_library_that_is_another() {
    if devices::rdma() {
        falls_back("", &[("RCCL_IBVERBS", "libc.so.6")], &["libc.so.6"]);
    }
}

#[test]
fn devices_that_this_user_may_not_open() {
    if able() {
        falls_back("closed", &[], &["/dev/infiniband/uverbs", "ermission denied"]);
    }
}

#[test]
fn devices_without_files() {
    if able() {
        falls_back("no device files", &[], &["/dev/infiniband/uverbs"]);
    }
}

#[test]
fn too_little_memory_that_may_be_locked() {
    if able() {
        falls_back("little memory", &[], &["ulimit -l", "64 KiB"]);
    }
}

#[test]
fn no_device_is_no_surprise() {
    let task = if able() { "no devices" } else { "" };
    if task.is_empty() && Path::new("/sys/class/infiniband").exists() {
        return;
    }
    let Said { lines, warnings } = said(task, &[]);
    for line in &lines {
        assert!(line.contains(" tcp: ") && line.contains("no RDMA (no RDMA device)"), "{line}");
    }
    assert!(warnings.is_empty(), "{warnings:?}");
    for line in said(task, &[("RCCL_NET", "verbs")]).lines {
        assert!(line.starts_with("failed RCCL-2005") && line.contains("no RDMA device"), "{line}");
    }
}
