//! `rccl env`, `rccl explain`, `rccl --version`.

use std::process::{Command, Output};

fn rccl(arguments: &[&str], vars: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rccl"));
    command.args(arguments).env_clear().envs(vars.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn settings_have_value_and_source() {
    let vars =
        [("RCCL_TIMEOUT", "30"), ("NCCL_HOSTID", "a"), ("RCCL_TIMEOT", "1"), ("RCCL_KEY", &"ab".repeat(16))];
    let output = rccl(&["env"], &vars);
    let table = stdout(&output);
    assert!(output.status.success());
    let row = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.split_whitespace().take(4).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("RCCL_TIMEOUT"), "RCCL_TIMEOUT 30s environment 10m");
    assert_eq!(row("RCCL_HOSTID"), "RCCL_HOSTID a NCCL_HOSTID -");
    assert!(!table.contains("abab"), "{table}");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("RCCL_TIMEOT (environment) is no setting; did you mean RCCL_TIMEOUT?"), "{log}");

    let rows: serde_json::Value = serde_json::from_str(&stdout(&rccl(&["env", "--json"], &vars))).unwrap();
    let timeout = rows.as_array().unwrap().iter().find(|row| row["name"] == "RCCL_TIMEOUT").unwrap();
    assert_eq!(timeout["source"], "environment");
}

#[test]
fn a_bad_value_is_named() {
    let output = rccl(&["env"], &[("RCCL_ALGO", "rng")]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("RCCL_ALGO=rng") && text.contains("did you mean `ring`?"), "{text}");
}

#[test]
fn codes_are_explained_and_versions_printed() {
    assert!(stdout(&rccl(&["explain", "rccl-2001"], &[])).contains("ranks made different calls"));
    assert_eq!(rccl(&["explain", "nonsense"], &[]).status.code(), Some(2));
    let version = stdout(&rccl(&["--version"], &[]));
    assert!(
        version.starts_with("rccl 0.") && version.contains("commit ") && version.contains("wire "),
        "{version}"
    );
}
