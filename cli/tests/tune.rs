//! `rccl tune`: profiles that are measured by real processes, and such that are simulated; what is wrong with its command line
//! and files.

use std::path::Path;
use std::process::{Command, Output};

fn rccl(arguments: &[&str], profile: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rccl"));
    command.args(arguments).env_clear().env("RCCL_INIT_TIMEOUT", "60").env("RCCL_TIMEOUT", "60");
    if let Some(profile) = profile {
        command.env("RCCL_TUNE_FILE", profile);
    }
    command.output().expect("the command starts")
}

fn words(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

fn refused(arguments: &[&str]) -> String {
    let output = rccl(arguments, None);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{arguments:?}");
    words(&output.stderr)
}

#[test]
fn what_was_measured_is_what_jobs_go_by() {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("profile.toml");
    let out = profile.to_str().unwrap();
    let measured =
        ["tune", "all_reduce", "gather", "--ranks", "3", "-e", "256", "-f", "8", "--budget", "0.001"];
    let output = rccl(&[&measured[..], &["-o", out]].concat(), None);
    assert!(output.status.success(), "{}", words(&output.stderr));
    let told = words(&output.stderr);
    assert!(told.starts_with("# 3 ranks on 1 host, shm\n"), "{told}");
    // Eight and 64 bytes of all_reduce; gather has no whole element for three ranks in eight.
    assert_eq!(told.lines().filter(|line| line.trim_start().starts_with("all_reduce")).count(), 2, "{told}");
    assert_eq!(told.lines().filter(|line| line.trim_start().starts_with("gather")).count(), 1, "{told}");
    let written = std::fs::read_to_string(&profile).unwrap();
    assert!(written.starts_with("# rccl tune all_reduce gather --ranks 3 "), "{written}");
    assert!(
        written.contains("\n[[layout]]\nranks = 3\nhosts = 1\npath = \"shm\"\nall_reduce = \""),
        "{written}"
    );

    // Another layout joins it, and the same one is measured anew.
    let second = rccl(&["tune", "gather", "--ranks", "2", "-e", "64", "--budget", "0.001", "-o", out], None);
    assert!(second.status.success(), "{}", words(&second.stderr));
    let written = std::fs::read_to_string(&profile).unwrap();
    assert_eq!(written.matches("[[layout]]").count(), 2, "{written}");

    let explained =
        rccl(&["topo", "--explain", "all_reduce", "--bytes", "64", "--ranks", "3"], Some(&profile));
    let explained = words(&explained.stdout);
    assert!(explained.contains(": profile of this layout (RCCL_TUNE_FILE)\n"), "{explained}");
    let before = std::fs::read(&profile).unwrap();
    let checked = rccl(&[&measured[..], &["-o", out, "--check"]].concat(), Some(&profile));
    assert!(checked.status.success(), "{}", words(&checked.stderr));
    assert_eq!(std::fs::read(&profile).unwrap(), before, "--check writes nothing");
}

#[test]
fn a_job_under_a_launcher_explains_itself_once() {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("profile.toml");
    std::fs::write(&profile, "[[layout]]\nranks = 3\nhosts = 1\npath = \"shm\"\nall_reduce = \"tree\"\n")
        .unwrap();
    let command = env!("CARGO_BIN_EXE_rccl");
    let launch = ["run", "-n", "3", "--no-prefix", "--timeout", "60", "--", command];
    let explain = ["topo", "--explain", "all_reduce", "--bytes", "8"];
    let output = rccl(&[&launch[..], &explain[..]].concat(), Some(&profile));
    assert!(output.status.success(), "{}", words(&output.stderr));
    let told = words(&output.stdout);
    assert!(told.starts_with("all_reduce of 3 ranks on 1 host, joined by shm"), "{told}");
    assert_eq!(told.matches("       8  tree: profile of this layout").count(), 1, "{told}");
}

#[test]
fn layouts_are_simulated_on_a_cluster_file() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = folder.path().join("cluster.toml");
    // Where bytes cost nothing, steps decide; and where they cost much, what moves least of them.
    let latency =
        "[network]\nrail_gbit_per_s = 100000\nrail_latency_us = 50\nsend_us = 0.1\nreceive_us = 0.1\n";
    let tune = |text: &str| {
        std::fs::write(&cluster, text).unwrap();
        let file = cluster.to_str().unwrap();
        let sizes = ["-b", "64K", "-e", "1M", "-f", "16"];
        let tune =
            ["tune", "all_reduce", "--cluster", file, "--layouts", "16x1,4x2", "--path", "verbs", "-o", "-"];
        let output = rccl(&[&tune[..], &sizes[..]].concat(), None);
        assert!(output.status.success(), "{}", words(&output.stderr));
        words(&output.stdout)
    };
    let few = tune(latency);
    assert!(few.contains("ranks = 16\nhosts = 16\npath = \"verbs\"\nall_reduce = \"direct\"\n"), "{few}");
    assert!(few.contains("ranks = 8\nhosts = 4\npath = \"verbs\"\n"), "{few}");
    let many = tune("[network]\nrail_gbit_per_s = 0.1\nrail_latency_us = 0.1\n");
    assert!(!many.contains("doubling") && !many.contains("tree"), "{many}");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.toml");
    std::fs::write(&broken, "[[layout]]\nranks = 2\nhosts = 3\npath = \"tcp\"\n").unwrap();
    let broken = broken.to_str().unwrap();
    for (arguments, expected) in [
        (&["tune", "all_reduce", "--ranks", "2", "-o", broken][..], "broken.toml:1:1: 2 ranks on 3 hosts"),
        (&["tune", "--ranks", "2", "-b", "1M", "-e", "1K"], "-e is below -b"),
        (&["tune"], "one rank alone has nothing to choose"),
        (&["tune", "all_reduze", "--ranks", "2"], "there are all_reduce"),
        (&["tune", "--layouts", "2x2"], "--cluster"),
        (&["tune", "--cluster", "nowhere.toml", "--layouts", "2x2", "-o", "-"], "nowhere.toml"),
        (&["tune", "--cluster", broken, "--layouts", "2-2"], "expected HOSTSxRANKS"),
        (&["tune", "--ranks", "2", "--budget", "0"], "above 0"),
        (&["topo", "--explain", "all_reduce"], "give --hosts and --ranks"),
        (&["topo", "--explain", "all_reduce", "--ranks", "2", "--svg", "x.svg"], "--explain is about a job"),
        (&["topo", "--bytes", "8"], "--explain"),
    ] {
        let said = refused(arguments);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
