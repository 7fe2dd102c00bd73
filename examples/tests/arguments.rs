//! Help, and command lines that make no sense.

use std::process::{Command, Output};

const DIGITS: &str = env!("CARGO_BIN_EXE_digits");
const SHARDED: &str = env!("CARGO_BIN_EXE_sharded");
const PIPELINE: &str = env!("CARGO_BIN_EXE_pipeline");
const OVERLAP: &str = env!("CARGO_BIN_EXE_overlap");

/// All of these end before a rank would join.
fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

#[test]
fn help_names_every_option() {
    for (program, own) in
        [(DIGITS, "[PICTURE]"), (SHARDED, ""), (PIPELINE, "--micro-batches"), (OVERLAP, "--buckets")]
    {
        let output = run(program, &["--help"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{program}");
        for option in ["--hidden", "--epochs", "[default: 30]", own] {
            assert!(said.contains(option), "{program} --help names {option}: {said}");
        }
    }
}

#[test]
fn nonsense_is_refused_by_name() {
    for (program, arguments, complaint) in [
        (DIGITS, &["--epochs", "0"][..], "invalid value '0' for '--epochs"),
        (DIGITS, &["a.svg", "b.svg"], "unexpected argument 'b.svg'"),
        (SHARDED, &["--hidden", "32,0"], "invalid value '0' for '--hidden"),
        (SHARDED, &["--hidden", "wide"], "invalid value 'wide' for '--hidden"),
        (PIPELINE, &["--micro-batches", "0"], "invalid value '0' for '--micro-batches"),
        (PIPELINE, &["--stages", "2"], "unexpected argument '--stages'"),
        (OVERLAP, &["--buckets", "0"], "invalid value '0' for '--buckets"),
        (OVERLAP, &["--buckets", "3"], "3 buckets for 2 layers"),
        (OVERLAP, &["--trace"], "a value is required for '--trace"),
    ] {
        let output = run(program, arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{program} {arguments:?}: {said}");
        assert!(said.contains(complaint), "{program} {arguments:?}: {said}");
    }
}
