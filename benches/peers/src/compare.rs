//! `peers compare`: the rounds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::child;
use crate::library::{Collective, Driver, Library, Memory, Transport, Work, word};
use crate::machine::Machine;
use crate::report::{Comparison, Report};
use crate::row::{self, Row};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long, value_enum, default_value = "all_reduce")]
    collective: Collective,
    /// Processes on this machine.
    #[arg(long, default_value_t = 2)]
    ranks: u32,
    #[arg(long, value_enum, default_value = "shm")]
    path: Transport,
    /// rccl's buffers; the peers have no such choice.
    #[arg(long, value_enum, default_value = "registered")]
    memory: Memory,
    /// Smallest size: bytes, or with K, M or G (powers of 1024).
    #[arg(short = 'b', default_value = "8", value_parser = bytes)]
    begin: u64,
    /// Largest size.
    #[arg(short = 'e', default_value = "16M", value_parser = bytes)]
    end: u64,
    /// Each size is the one before times this.
    #[arg(short = 'f', default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..))]
    factor: u64,
    /// Time each call together with a barrier behind it: how long until everybody has it.
    #[arg(long)]
    closing_barrier: bool,
    /// How often each library has its turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Which libraries, in the order of their turns.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "rccl,openmpi,mpich,gloo,limit")]
    libs: Vec<Library>,
    /// Milliseconds of timed calls for one size; a library too slow for it gets fewer iterations.
    #[arg(long, default_value_t = 300)]
    budget_ms: u64,
    /// Seconds after which a library's turn is ended and the library dropped.
    #[arg(long, default_value_t = 60)]
    limit_s: u64,
    /// The `rccl` program.
    #[arg(long, default_value = "target/release/rccl")]
    rccl: PathBuf,
    /// A further argument for `rccl perf`, such as `--rccl-arg=--algo=ring`; may be repeated.
    #[arg(long = "rccl-arg", allow_hyphen_values = true)]
    rccl_arguments: Vec<String>,
    /// Folder for the JSON, CSV and SVG files.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../results"))]
    out: PathBuf,
}

/// Measures, prints and writes. `Ok(false)` where a library gave wrong results or rccl did not finish.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let work = Work {
        collective: arguments.collective,
        ranks: arguments.ranks,
        transport: arguments.path,
        memory: arguments.memory,
        begin: arguments.begin.max(arguments.collective.smallest(arguments.ranks)),
        end: arguments.end,
        factor: arguments.factor,
        closing_barrier: arguments.closing_barrier,
        budget_ms: arguments.budget_ms,
    };
    let machine = Machine::here();
    let scratch = tempfile::tempdir().map_err(|e| format!("cannot make a scratch folder: {e}"))?;
    let mut notes = Vec::new();
    let mut versions = BTreeMap::new();
    let mut drivers = Vec::new();
    for &library in &arguments.libs {
        match library.build(&work, &arguments.rccl, scratch.path()) {
            Ok(driver) => {
                drivers.push(driver);
                versions.insert(library.name(), library.version(&arguments.rccl).unwrap_or_default());
            }
            Err(why) => notes.push(format!("{} is left out: {why}", library.name())),
        }
    }
    notes.iter().for_each(|note| eprintln!("{note}"));
    if drivers.is_empty() {
        return Err("no library can take part".to_owned());
    }

    let mut comparison = Comparison::default();
    let mut rccl_finished = true;
    for round in 1..=arguments.rounds {
        let mut dropped = Vec::new();
        for driver in &drivers {
            let name = driver.library.name();
            let started = Instant::now();
            let (rows, trouble) = one_turn(driver, &work, arguments)?;
            comparison.add(driver.library, work.collective, &rows);
            match trouble {
                None => {
                    let seconds = started.elapsed().as_secs_f64();
                    eprintln!(
                        "round {round}/{}: {name}: {} sizes in {seconds:.1} s",
                        arguments.rounds,
                        rows.len()
                    );
                }
                Some(why) => {
                    eprintln!("round {round}/{}: {name} is dropped: {why}", arguments.rounds);
                    notes.push(format!("{name} was dropped in round {round}: {why}"));
                    rccl_finished &= driver.library != Library::Rccl;
                    dropped.push(driver.library);
                }
            }
        }
        drivers.retain(|driver| !dropped.contains(&driver.library));
    }

    let report = Report::new(machine, work, versions, arguments.rounds, notes, &comparison);
    print!("{}", report.table());
    let stem = format!(
        "{}-{}-{}ranks-{}{}",
        word(&report.work.collective),
        word(&report.work.transport),
        report.work.ranks,
        word(&report.work.memory),
        if report.work.closing_barrier { "-closed" } else { "" }
    );
    for file in report.write(&arguments.out, &stem)? {
        println!("wrote {}", file.display());
    }
    Ok(rccl_finished && comparison.wrong() == 0)
}

/// The rows that a library wrote, also when it did not finish, and then the reason why it did not.
fn one_turn(
    driver: &Driver,
    work: &Work,
    arguments: &Arguments,
) -> Result<(Vec<Row>, Option<String>), String> {
    let scratch = tempfile::tempdir().map_err(|e| format!("cannot make a scratch folder: {e}"))?;
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).map_err(|e| format!("cannot make {}: {e}", store.display()))?;
    let file = scratch.path().join("rows.json");
    let commands = driver.commands(work, &arguments.rccl_arguments, &file, &store);
    let outcome = child::run_all(commands, Duration::from_secs(arguments.limit_s));
    match (outcome, row::read(&file)) {
        (Ok(()), Ok(rows)) => Ok((rows, None)),
        (Ok(()), Err(why)) => Ok((Vec::new(), Some(why))),
        // How a peer ends after it has measured everything is no business of ours.
        (Err(_), Ok(rows)) if driver.library != Library::Rccl && rows.len() == work.sizes() => {
            Ok((rows, None))
        }
        (Err(why), rows) => Ok((rows.unwrap_or_default(), Some(why))),
    }
}

/// A size in bytes: a number, or a number with K, M or G.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.to_ascii_uppercase().chars().last() {
        Some('K') => (&text[..text.len() - 1], 10),
        Some('M') => (&text[..text.len() - 1], 20),
        Some('G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is not a size such as 8, 32K or 16M"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_numbers_with_binary_suffixes() {
        assert_eq!(
            [bytes("8"), bytes("32K"), bytes("16m"), bytes("1G")],
            [Ok(8), Ok(32 << 10), Ok(16 << 20), Ok(1 << 30)]
        );
        for bad in ["", "K", "x", "8KB", "-1", "99999999999G"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
