//! A child process that cannot outlive its deadline, nor leave its own children behind.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a launcher has to end its ranks after the polite signal.
const GRACE: Duration = Duration::from_secs(3);

/// Runs all commands at once, each in a process group of its own, and waits for all of them.
///
/// When one fails or `limit` has passed, the others are ended: first SIGTERM, which lets `mpirun` clear up its ranks,
/// then SIGKILL. The error carries the end of what the children wrote to standard error, which goes to a file
/// meanwhile, so that a talkative child never blocks on a full pipe.
pub fn run_all(commands: Vec<Command>, limit: Duration) -> Result<(), String> {
    let log = tempfile::NamedTempFile::new().map_err(|e| format!("cannot make a log file: {e}"))?;
    let mut running = Vec::with_capacity(commands.len());
    let mut failure = None;
    for mut command in commands {
        let name = command.get_program().to_string_lossy().into_owned();
        let append = |e| format!("cannot write to {}: {e}", log.path().display());
        let stderr = std::fs::File::options().append(true).open(log.path()).map_err(append)?;
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        match command.spawn() {
            Ok(child) => running.push((name, child)),
            Err(e) => {
                failure = Some(format!("cannot start {name}: {e}"));
                break;
            }
        }
    }
    let failure = failure.or_else(|| first_failure(&mut running, Instant::now() + limit, limit));
    let Some(failure) = failure else { return Ok(()) };
    for (_, child) in &mut running {
        end(child);
    }
    let said = std::fs::read_to_string(log.path()).unwrap_or_default();
    let tail: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    Err(std::iter::once(failure.as_str())
        .chain(tail[tail.len().saturating_sub(6)..].iter().copied())
        .collect::<Vec<_>>()
        .join("\n    "))
}

/// Waits until all have ended well (`None`), or one has not, or the deadline has passed.
fn first_failure(running: &mut Vec<(String, Child)>, deadline: Instant, limit: Duration) -> Option<String> {
    loop {
        let mut at = 0;
        while at < running.len() {
            let (name, child) = &mut running[at];
            match child.try_wait() {
                Ok(Some(status)) if status.success() => {
                    running.swap_remove(at);
                }
                Ok(Some(status)) => return Some(format!("{name} ended with {status}")),
                Ok(None) => at += 1,
                Err(e) => return Some(format!("cannot wait for {name}: {e}")),
            }
        }
        let (name, _) = running.first()?;
        if Instant::now() >= deadline {
            return Some(format!("{name} did not finish within {limit:?}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn end(child: &mut Child) {
    let group = Pid::from_child(child);
    // An error means that the group is gone already, which is what is wanted.
    let _ = kill_process_group(group, Signal::TERM);
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_child_that_hangs_is_ended_with_its_own_children() {
        let started = Instant::now();
        let error = run_all(vec![shell("sleep 60 & sleep 60")], Duration::from_millis(200)).unwrap_err();
        assert!(error.contains("did not finish within 200ms"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn the_first_failure_ends_the_others_and_is_quoted() {
        let failing = shell("echo 'no route to the moon' >&2; exit 3");
        let error = run_all(vec![shell("sleep 60"), failing], Duration::from_secs(30)).unwrap_err();
        assert!(error.contains("exit status: 3") && error.contains("no route to the moon"), "{error}");
    }

    #[test]
    fn all_well_is_well() {
        run_all(vec![shell("true"), shell("sleep 0.05")], Duration::from_secs(30)).unwrap();
    }
}
