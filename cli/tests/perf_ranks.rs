//! `rccl perf` between real processes: the table, the check, the JSON, the programs, and bad options.

use std::process::{Command, Output};

/// Runs the command; its own deadlines end it where the ranks do not come together or a call hangs.
fn perf(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rccl"));
    // The test's own environment shall not choose.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RCCL_") || name.to_string_lossy().starts_with("NCCL_") {
            command.env_remove(name);
        }
    }
    command.env("RCCL_INIT_TIMEOUT", "60").arg("perf").args(arguments.split_whitespace());
    if arguments.contains("--ranks") && !arguments.contains("--timeout") {
        command.args(["--timeout", "60"]);
    }
    command.output().expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a successful run wrote to standard output.
fn table(arguments: &str) -> String {
    let output = perf(arguments);
    assert!(output.status.success(), "{arguments}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn every_type_and_operator_is_right() {
    let table = table("all_reduce --ranks 2 -b 8 -e 64K -f 8 -d all -o all -n 1 -w 1");
    let rows = rows(&table);
    // 12 types by 6 operators, and 6 types of integers by 3 more.
    assert_eq!(rows.len(), (12 * 6 + 6 * 3) * 5, "{table}");
    for row in &rows {
        assert_eq!(row.len(), 13, "{row:?}");
        assert_eq!((row[8], row[12]), ("0", "0"), "{row:?}");
        assert_eq!(row[4], "-1");
    }
    assert_eq!(rows[0][..4], ["8", "8", "int8", "sum"]);
    assert!(table.contains("\n# Out of bounds values : 0 OK\n# Avg bus bandwidth    : "), "{table}");
    assert!(table.lines().any(|line| line.starts_with("#       size         count      type")), "{table}");
}

const COLLECTIVES: [&str; 14] = [
    "all_reduce",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_v",
    "broadcast",
    "scatter",
    "scatter_v",
    "gather",
    "gather_v",
    "all_gather",
    "all_gather_v",
    "all_to_all",
    "all_to_all_v",
    "sendrecv",
];

/// Whether a row says that every element was right; what has no form in place has no second half.
fn is_right(row: &[&str]) -> bool {
    let apart = row[8] == "0";
    let in_place = row[12] == "0" || row[9..] == ["N/A"; 4];
    row.len() == 13 && apart && in_place
}

/// Rows of three ranks, from no element up to several chunks.
fn check_every_collective(how: &str) {
    for collective in COLLECTIVES {
        let arguments = format!("{collective} --ranks 3 -b 8 -e 512K -f 64 -n 2 -w 1 {how}");
        let table = table(&arguments);
        let rows = rows(&table);
        assert!(rows.len() == 3 && rows.iter().all(|row| is_right(row)), "{arguments}\n{table}");
    }
}

#[test]
fn every_collective_is_right() {
    check_every_collective("-r 1");
}

#[test]
fn every_collective_is_right_in_groups() {
    check_every_collective("-m 3");
}

#[test]
fn every_collective_is_right_without_blocking() {
    check_every_collective("--async -m 2 -r 2 --transport tcp --memory plain");
}

#[test]
fn every_collective_of_one_rank_is_right() {
    for collective in COLLECTIVES {
        let table = table(&format!("{collective} -b 8 -e 64K -f 64 -n 1 -w 0"));
        assert!(rows(&table).iter().all(|row| is_right(row)), "{table}");
    }
}

#[test]
fn reductions_know_all_operators_and_types() {
    for (collective, roots) in [("reduce", 2), ("reduce_scatter", 1), ("reduce_scatter_v", 1)] {
        let table = table(&format!("{collective} --ranks 2 -b 1000 -e 1000 -o all -d all -r all -n 1 -w 0"));
        let rows = rows(&table);
        assert_eq!(rows.len(), (12 * 6 + 6 * 3) * roots, "{table}");
        assert!(rows.iter().all(|row| is_right(row)), "{table}");
    }
}

#[test]
fn sizes_are_those_of_all_blocks() {
    for (collective, head) in [
        ("all_gather", ["1016", "127", "double", "none", "-1"]),
        ("reduce_scatter", ["1016", "127", "double", "sum", "-1"]),
        ("gather", ["1016", "127", "double", "none", "0"]),
        ("all_to_all", ["1016", "127", "double", "none", "-1"]),
        ("all_to_all_v", ["1016", "127", "double", "none", "-1"]),
        ("reduce", ["1016", "127", "double", "sum", "0"]),
        ("sendrecv", ["1016", "127", "double", "none", "-1"]),
    ] {
        let table = table(&format!("{collective} -b 1020 -e 1020 -d double -n 1"));
        assert_eq!(rows(&table)[0][..5], head, "{table}");
    }
    let table = table("all_gather --ranks 3 -b 1020 -e 1020 -n 1 -d double");
    assert_eq!(rows(&table)[0][..2], ["1008", "42"], "{table}");
}

/// Ranks that do not agree on the data: what one gives is not what the others expect.
#[test]
fn wrong_elements_are_counted_and_the_status_tells() {
    let rccl = env!("CARGO_BIN_EXE_rccl");
    for (collective, least) in
        [("all_reduce", 100), ("all_gather", 100), ("sendrecv", 100), ("reduce_scatter_v", 50)]
    {
        let mut command = Command::new(rccl);
        command.env("RCCL_INIT_TIMEOUT", "60").env("RCCL_TIMEOUT", "60");
        command.args(["run", "-n", "2", "--no-prefix", "--", "sh", "-c"]);
        let perf = format!("exec {rccl} perf {collective} -b 1K -e 1K -n 1 -d int32 --seed $RANK");
        let output = command.arg(perf).output().unwrap();
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}{}", text(&output.stderr));
        assert!(said.contains(" FAILED\n"), "{said}");
        let wrong: u64 = rows(&said)[0][8].parse().unwrap();
        assert!(wrong >= least, "{said}");
    }
}

#[test]
fn tcp_and_plain_memory_are_right() {
    for arguments in [
        "allreduce --ranks 3 -b 0 -e 100000 -f 16 -d half -o prod -n 1 -w 0 -c 2 --transport tcp",
        "all_reduce --ranks 3 -b 1M -e 3M -i 1M -d f8e5m2 -o avg -n 1 -w 1 --memory plain --algo ring",
        "broadcast --ranks 3 -b 8 -e 1M -f 32 -r all -n 2 -w 0",
    ] {
        let table = table(arguments);
        assert!(rows(&table).iter().all(|row| row[8] == "0" && row[12] == "0"), "{arguments}\n{table}");
    }
}

#[test]
fn a_broadcast_names_its_root_and_a_barrier_has_one_row() {
    let broadcast = table("broadcast --ranks 2 -b 64 -e 64 -r all -c 0 -n 1");
    let rows_of_broadcast = rows(&broadcast);
    assert_eq!(rows_of_broadcast.len(), 2);
    for (root, row) in rows_of_broadcast.iter().enumerate() {
        assert_eq!(row[..5], ["64", "16", "float", "none", &root.to_string()]);
        assert_eq!((row[8], row[12]), ("N/A", "N/A"));
    }
    let barrier = table("barrier --ranks 2 -n 3");
    let row = &rows(&barrier)[0];
    assert_eq!(row[..5], ["0", "0", "none", "none", "-1"]);
    assert!(row[5].parse::<f64>().unwrap() > 0.0);
    assert_eq!(row[9], "N/A");
}

#[test]
fn json_has_a_row_for_each_way_of_calling() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.json");
    table(&format!("all_reduce --ranks 2 -b 8 -e 64K -f 64 -n 10 --transport tcp --json {}", path.display()));
    let written = std::fs::read_to_string(&path).unwrap();
    let rows: Vec<serde_json::Value> =
        written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3 * 2);
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row["collective"], "all_reduce");
        assert_eq!(row["bytes"], [8, 512, 32768][index / 2]);
        assert_eq!(row["in_place"], index % 2 == 1);
        assert_eq!((&row["ranks"], &row["type"], &row["op"]), (&2.into(), &"float".into(), &"sum".into()));
        assert_eq!((&row["transport"], &row["wrong"]), (&"tcp".into(), &0.into()));
        assert!(!row["algo"].as_str().unwrap().is_empty());
        let time = |name: &str| row["time_us"][name].as_f64().unwrap();
        assert!(0.0 < time("min") && time("min") <= time("median"));
        assert!(time("median") <= time("p99") && time("p99") <= time("max"));
        let bandwidth = row["bytes"].as_f64().unwrap() / time("median") / 1e3;
        assert!((row["algbw"].as_f64().unwrap() - bandwidth).abs() <= 1e-9 * bandwidth);
        assert_eq!(row["algbw"], row["busbw"]); // two ranks: the factor is 1
    }
}

#[test]
fn json_on_standard_output_is_alone_there() {
    let output = perf("broadcast --ranks 2 -b 8 -e 8 -n 3 --json -");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    assert_eq!(stdout.lines().count(), 2, "{stdout}");
    assert!(stdout.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert!(text(&output.stderr).contains("# Avg bus bandwidth"));
}

#[test]
fn the_program_of_each_rank_can_be_read() {
    let table = table("all_reduce --ranks 2 -b 4K -e 4K -n 1 --algo ring --explain=all");
    for rank in 0..2 {
        let head = format!("# all_reduce f32 x1024 sum by ring\n# rank {rank} of 2");
        assert!(table.contains(&head), "{table}");
    }
}

#[test]
fn one_process_is_a_job_too() {
    // No launcher: a job of this process alone.
    let output = perf("all_reduce -b 1K -e 1K -n 1");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(rows(&text(&output.stdout)).len(), 1);
}

#[test]
fn the_launcher_is_joined_without_ranks() {
    let rccl = env!("CARGO_BIN_EXE_rccl");
    let mut command = Command::new(rccl);
    command.env("RCCL_INIT_TIMEOUT", "60").env("RCCL_TIMEOUT", "60").args([
        "run",
        "-n",
        "2",
        "--no-prefix",
        "--",
    ]);
    let output = command.args([rccl, "perf", "allreduce", "-b", "8", "-e", "8", "-n", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.contains("# nRanks 2 ") && table.contains("#  Rank  1 Pid "), "{table}");
    assert_eq!(rows(&table).len(), 1);
    let mut command = Command::new(rccl);
    command.env("RCCL_INIT_TIMEOUT", "60").args(["run", "-n", "2", "--no-prefix", "--"]);
    let output = command.args([rccl, "perf", "broadcast", "-r", "2"]).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.matches("-r 2: there are 2 ranks").count(), 1, "{said}");
}

#[test]
fn what_no_rank_can_have_is_said_once() {
    let output = perf("all_reduce --ranks 3 -b 1000T -e 1000T");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert_eq!(said.matches("RCCL-1004").count(), 1, "{said}");
}

#[test]
fn bad_options_end_before_any_rank_starts() {
    for (arguments, says) in [
        ("all_reduce --ranks 2 -b 1K -e 8", "-e 8 is below -b 1024"),
        ("broadcast --ranks 2 -r 5", "-r 5: there are 2 ranks"),
        ("all_reduce --ranks 2 --algo rnig", "did you mean `ring`"),
        ("all_redce --ranks 2", "did you mean all_reduce"),
        ("all_reduce --ranks 2 -d fp99", "unknown data type"),
        ("broadcast -r 1", "-r 1: there are 1 ranks"),
        ("all_reduce --ranks 2 --json /nonexistent/rows.json", "/nonexistent/rows.json"),
    ] {
        let output = perf(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        assert_eq!(said.matches(says).count(), 1, "{arguments}: {said}");
        assert!(output.stdout.is_empty(), "{arguments}");
    }
}
