//! Running `rccl topo`, for the tests of it.

use std::path::PathBuf;
use std::process::{Command, Output};

pub fn topo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rccl")).arg("topo").args(arguments).env_clear().output().unwrap()
}

/// The path of a file of the repository.
pub fn file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    path.into_os_string().into_string().unwrap()
}

/// The path of one of NCCL's files.
pub fn nccl(name: &str) -> String {
    file(&format!("topology/tests/nccl/{name}"))
}

/// What is printed by a run that has nothing to complain of.
pub fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Status 2, and what was said.
pub fn refused(arguments: &[&str]) -> String {
    let output = topo(arguments);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]));
    String::from_utf8(output.stderr).unwrap()
}
