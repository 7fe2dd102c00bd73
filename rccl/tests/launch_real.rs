//! Real launchers start this very test program, whose ranks find each other and pass an id from rank 0 to the others.
//!
//! A launcher that is not installed is skipped with a line that says so; with `CI=true` its absence is a failure.

use rccl::launch::{Meeting, Placement, detect};
use rccl::{Config, init_logging};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const ID: [u8; 128] = [0xA5; 128];

/// What each rank does. Run by the launchers below, not by `cargo test`.
#[test]
#[ignore = "a rank: started by the other tests"]
fn rank() {
    let config = Config::from_env().unwrap();
    init_logging(&config);
    // Twice: a program may create several communicators.
    for round in 1..=2 {
        let placement = detect(&config).unwrap();
        if std::env::var("TEST_ABSENT").is_ok_and(|absent| absent == placement.rank.to_string()) {
            std::thread::sleep(Duration::from_secs(6));
            return;
        }
        let Placement { rank, size, launcher, meeting, .. } = placement;
        let deadline = Instant::now() + config.init_timeout;
        let (mut id, mut failure) = (ID, None);
        let place = meeting.to_string();
        if let Meeting::Exchange(mut exchange) = meeting {
            if rank == 0 {
                failure = exchange.publish(&ID, deadline).err();
            } else {
                match exchange.fetch(deadline) {
                    Ok(fetched) => id = fetched,
                    Err(error) => failure = Some(error),
                }
            }
        }
        let result = failure.map_or_else(|| (id == ID).to_string(), |error| error.to_string());
        // One write, so that the ranks' lines do not mix.
        let line =
            format!("\nround {round} rank {rank}/{size} by {} at {place}: {result}\n", launcher.word());
        std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).unwrap();
    }
}

/// The launcher's command line, up to the program.
fn launch(launcher: &[&str], vars: &[(&str, &str)]) -> Option<String> {
    let Some(path) = find(launcher[0]) else {
        let required = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!required, "{} is not installed, and CI requires it", launcher[0]);
        eprintln!("skipped: {} is not installed", launcher[0]);
        return None;
    };
    let mut command = Command::new("timeout");
    command.arg("60").arg(path).args(&launcher[1..]).arg(std::env::current_exe().unwrap());
    command.args(["rank", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.env("RCCL_INIT_TIMEOUT", "20").stdin(Stdio::null());
    command.envs(vars.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    eprintln!("{launcher:?}: {status}\n{text}");
    assert!(status.success() || !vars.is_empty(), "{launcher:?}: {status}");
    Some(text)
}

fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
}

fn expect_all(text: &str, size: u32, word: &str) {
    for round in 1..=2 {
        for rank in 0..size {
            let start = format!("round {round} rank {rank}/{size} by {word} at ");
            let line = text.lines().find(|line| line.contains(&start));
            let line = line.unwrap_or_else(|| panic!("no line `{start}`"));
            assert!(line.ends_with(": true"), "{line}");
        }
    }
}

#[test]
fn open_mpi_meets_through_pmix() {
    if let Some(text) = launch(&["mpirun.openmpi", "--oversubscribe", "-np", "3"], &[]) {
        expect_all(&text, 3, "pmix");
    }
}

#[test]
fn open_mpi_does_not_hang_when_a_rank_stays_away() {
    let vars = [("TEST_ABSENT", "1"), ("RCCL_INIT_TIMEOUT", "2")];
    if let Some(text) = launch(&["mpirun.openmpi", "--oversubscribe", "-np", "2"], &vars) {
        assert!(text.contains("rank 0/2 by pmix") && text.contains("publishing the unique id: "), "{text}");
    }
}

#[test]
fn a_missing_pmix_library_is_named() {
    let vars = [("RCCL_PMIX_LIBRARY", "/nonexistent/libpmix.so.2")];
    if let Some(text) = launch(&["mpirun.openmpi", "-np", "1"], &vars) {
        assert!(
            text.contains("/nonexistent/libpmix.so.2") && text.contains("RCCL_COMM_ID=host:port"),
            "{text}"
        );
    }
}

#[test]
fn hydra_meets_through_pmi() {
    if let Some(text) = launch(&["mpiexec.hydra", "-n", "3"], &[]) {
        expect_all(&text, 3, "pmi");
    }
}

/// `TEST_TORCHRUN` names a torchrun: a machine that has one rarely has it on its path.
#[test]
fn torchrun_meets_in_the_agents_store() {
    let Ok(torchrun) = std::env::var("TEST_TORCHRUN") else {
        eprintln!("skipped: TEST_TORCHRUN is not set");
        return;
    };
    for libuv in ["1", "0"] {
        let launcher = [torchrun.as_str(), "--standalone", "--nproc-per-node", "3", "--no-python"];
        let text = launch(&launcher, &[("USE_LIBUV", libuv)]).unwrap();
        expect_all(&text, 3, "torchrun");
    }
}

/// `TEST_SRUN=1` says that `srun` works here; `tests/slurm.sh` starts a Slurm and sets it.
#[test]
fn slurm_steps_have_ranks() {
    if std::env::var_os("TEST_SRUN").is_none() {
        eprintln!("skipped: TEST_SRUN is not set");
        return;
    }
    let text = launch(&["srun", "-n", "2", "--overcommit", "--mpi=none"], &[]).unwrap();
    expect_all(&text, 2, "slurm");
    for (plugin, word) in [("--mpi=pmi2", "pmi"), ("--mpi=pmix", "pmix")] {
        let text = launch(&["srun", "-n", "2", "--overcommit", plugin], &[]).unwrap();
        expect_all(&text, 2, word);
    }
}
