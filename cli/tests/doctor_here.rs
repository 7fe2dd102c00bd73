//! `rccl doctor` as a process, on this machine, whatever it has.

use std::process::{Command, Output};

/// Runs the command with these variables and none of the test's own settings. Its own deadlines end it.
fn doctor(arguments: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rccl"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("RCCL_") || name.starts_with("NCCL_") {
            command.env_remove(&*name);
        }
    }
    command.env("RCCL_INIT_TIMEOUT", "60").env("RCCL_TIMEOUT", "120").envs(variables.iter().copied());
    command.arg("doctor").args(arguments.split_whitespace()).output().expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)))
}

fn has_device() -> bool {
    std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut entries| entries.next().is_some())
}

#[test]
fn the_text_ends_with_a_verdict_that_fits_the_status() {
    let output = doctor("--local", &[]);
    let said = text(&output.stdout);
    let verdict = said.lines().last().unwrap();
    match output.status.code() {
        Some(0) if !has_device() => {
            assert_eq!(
                verdict,
                "There is no RDMA device on this host: ranks on other hosts are reached over TCP."
            )
        }
        Some(0) => assert!(verdict.starts_with("RDMA works on this host: "), "{said}"),
        Some(1) => assert!(said.contains("ERROR"), "{said}"),
        other => panic!("{other:?}: {said}{}", text(&output.stderr)),
    }
}

#[test]
fn the_json_has_the_keys_that_are_documented() {
    let output = doctor("--json", &[]);
    let json = json(&output);
    assert_eq!(json["schema"], 1);
    assert_eq!(json["healthy"], output.status.success());
    assert!(json["verdict"].is_string());
    for list in ["ranks", "hosts", "pairs", "findings"] {
        assert!(json[list].is_array(), "{list}");
    }
    let host = &json["hosts"][0];
    let page = include_str!("../../docs/doctor.md");
    for (key, _) in host.as_object().unwrap() {
        assert!(page.contains(&format!("`{key}`")), "{key} is not in docs/doctor.md");
    }
    for key in ["findings", "devices", "interfaces"] {
        assert!(host[key].is_array(), "{key}");
    }
}

#[test]
fn several_ranks_answer_as_one() {
    let output = doctor("--ranks 3 --json", &[]);
    let json = json(&output);
    assert_eq!(json["ranks"].as_array().unwrap().len(), 3);
    assert_eq!(json["healthy"], output.status.success());
    if !has_device() {
        assert_eq!(json["verdict"], "There is no RDMA between these ranks: TCP is used there.");
    }
    let output = doctor("--ranks 2", &[]);
    assert_eq!(text(&output.stdout).matches("\nhost ").count(), 0, "one host is told once");
}

#[test]
fn a_launcher_is_joined_unless_told_otherwise() {
    let rank = [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")];
    let output = doctor("--local", &rank);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    let alone = [&rank[..], &[("RCCL_INIT_TIMEOUT", "1")]].concat();
    let output = doctor("", &alone);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text(&output.stderr).contains("\nrccl doctor: RCCL-1003 "), "{output:?}");
}

#[test]
fn rdma_that_is_demanded_and_absent_is_an_error() {
    let output = doctor("--json", &[("RCCL_NET", "verbs"), ("RCCL_IB_DISABLE", "1")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(json(&output)["hosts"][0]["findings"][0]["code"], "switched-off");
    let output = doctor("", &[("RCCL_NET", "tcp")]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn bad_options_and_settings_have_a_status_of_their_own() {
    for (arguments, variables) in [
        ("--nonsense", &[][..]),
        ("--ranks 0", &[]),
        ("--ranks 2 --local", &[]),
        ("", &[("RCCL_IB_HCA", "a,^b")]),
        ("--ranks 2", &[("RCCL_NET", "verb")]),
    ] {
        let output = doctor(arguments, variables);
        assert_eq!(output.status.code(), Some(2), "{arguments} {variables:?}: {output:?}");
    }
    let help = text(&doctor("--help", &[]).stdout);
    assert!(help.contains("Exit status:"), "{help}");
}
