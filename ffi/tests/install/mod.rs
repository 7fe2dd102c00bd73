//! The library as `cargo xtask install` puts it under a prefix, and programs that use it from there.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The library under a prefix of this test file's own, which stays: the next run writes to the same place.
pub fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join(concat!("for-", env!("CARGO_CRATE_NAME")));
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["run", "--quiet", "--package", "xtask", "--", "install", "--debug", "--prefix"]);
        said(cargo.arg(&prefix));
        prefix
    })
}

/// Whether the tools are installed. One that is not is skipped with a line that says so; with `CI=true` its absence is a
/// failure.
#[allow(dead_code, reason = "not every test file needs more than a C compiler, which linked it")]
pub fn have(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    tools.iter().all(|tool| {
        let found = std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
        let required = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(found || !required, "{tool} is not installed, and CI requires it");
        if !found {
            eprintln!("skipped: {tool} is not installed");
        }
        found
    })
}

/// What a command that succeeds writes.
pub fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program on so many ranks; what each wrote.
#[allow(dead_code, reason = "not every test file runs ranks")]
pub fn run(program: &Path, arguments: &[&str], ranks: usize) -> Vec<String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let mut started: Vec<Child> = (0..ranks)
        .map(|rank| {
            let mut command = Command::new(program);
            command.args(arguments);
            command.env("RCCL_RANK", rank.to_string()).env("RCCL_SIZE", ranks.to_string());
            command.env("RCCL_COMM_ID", free.to_string()).env("RCCL_KEY", "000102030405060708090a0b0c0d0e0f");
            command.env("RCCL_INIT_TIMEOUT", "60").env("LD_LIBRARY_PATH", installed().join("lib"));
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(120);
    while started.iter_mut().any(|child| child.try_wait().expect("its state").is_none()) {
        if Instant::now() > end {
            started.iter_mut().for_each(|child| drop(child.kill()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let outputs: Vec<Output> =
        started.into_iter().map(|child| child.wait_with_output().expect("its output")).collect();
    // All that failed, since the first cause is told by one of them only.
    let failed = outputs.iter().enumerate().filter(|(_, output)| !output.status.success());
    let failed = failed.map(|(rank, output)| {
        format!("rank {rank}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr))
    });
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    outputs.iter().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).collect()
}
