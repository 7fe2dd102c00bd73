//! The moment between `rccl run` and the program: a process of this very command that ties itself to its parent and
//! then becomes the program.
//!
//! The kernel can be asked to signal a process when its parent dies, but only by the process itself, after the fork.
//! Doing that here and not in the forked child needs no code that runs between fork and exec.

use rustix::thread::{CpuSet, sched_setaffinity};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// The hidden subcommand.
pub const RANK_COMMAND: &str = "become-rank";

/// The arguments of the hidden subcommand.
#[derive(clap::Args)]
pub struct RankOptions {
    /// The process that must live.
    #[arg(long)]
    parent: i32,
    /// The processors that it may use: all that its parent may, if none are named.
    #[arg(long, value_delimiter = ',')]
    processors: Vec<usize>,
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// Ties this process to its parent and runs the program in its place. Returns only if that is impossible, with the
/// shell's statuses: 127 for a program that does not exist, 126 for one that cannot be run.
pub fn become_rank(options: RankOptions) -> ExitCode {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("rccl run: the ranks would outlive it: {error}");
    }
    // It may have died before it could be asked for.
    if getppid().map(|parent| parent.as_raw_nonzero().get()) != Some(options.parent) {
        return ExitCode::FAILURE;
    }
    if !options.processors.is_empty() {
        let mut set = CpuSet::new();
        options.processors.iter().for_each(|&processor| set.set(processor));
        if let Err(error) = sched_setaffinity(None, &set) {
            eprintln!("rccl run: no processors of its own for this rank: {error}");
        }
    }
    let Some((program, arguments)) = options.program.split_first() else { return ExitCode::from(127) };
    let error = Command::new(program).args(arguments).exec();
    eprintln!("rccl run: {}: {error}", program.display());
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}
