//! `rccl simulate`.

use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rccl"));
    command.arg("simulate").args(arguments).env_clear().output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_table_has_a_row_for_each_algorithm_and_size() {
    let output = simulate(&["all_reduce", "--ranks", "16", "--bytes", "1K,64K"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for word in
        ["ring", "tree", "doubling", "halving", "direct", "exchange", "hierarchical", "hierarchical_halving"]
    {
        let rows = table.lines().filter(|line| line.split_whitespace().nth(1) == Some(word)).count();
        assert_eq!(rows, 2, "{word}: {table}");
    }
    assert!(table.contains("host 0 rail"), "{table}");
}

#[test]
fn json_and_pictures_repeat_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("plot.svg");
    let run = || {
        let arguments = ["all_gather", "--ranks", "24", "--algo", "ring,bruck", "--json", "-", "--svg"];
        let output = simulate(&[&arguments[..], &[plot.to_str().unwrap()]].concat());
        (text(&output.stdout), std::fs::read_to_string(&plot).unwrap())
    };
    let (lines, svg) = run();
    assert_eq!(run(), (lines.clone(), svg.clone()));
    assert!(svg.starts_with("<svg") && svg.contains("bruck"));
    let rows: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 6);
    assert!(
        rows.iter().all(|row| row["time_us"].as_f64().unwrap() > 0.0 && row["how"] == "simulated"),
        "{lines}"
    );
}

#[test]
fn nonsense_gets_one_line_and_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.toml");
    std::fs::write(&file, "[hosts]\nrank = 8\n").unwrap();
    let (file, ranks) = (file.to_str().unwrap(), ["all_reduce", "--ranks", "4"]);
    let cases: [(&[&str], &str); 5] = [
        (&["--algo", "rng"], "there are ring, tree"),
        (&["--root", "4"], "--root 4"),
        (&["--cluster", "/nowhere/cluster.toml"], "cannot read"),
        (&["--cluster", file], "cluster.toml:2:1: unknown field `rank`"),
        (&["--json", "-", "--svg", "-"], "standard output"),
    ];
    for (more, words) in cases {
        let output = simulate(&[&ranks[..], more].concat());
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert!(complaint.contains(words) && complaint.lines().count() == 1, "{complaint}");
    }
    for wrong in [&["all_reduce", "--ranks", "0"][..], &["reduce_all", "--ranks", "4"]] {
        assert_eq!(simulate(wrong).status.code(), Some(2));
    }
}
