//! How this command was started, so that it can be once more.

use std::ffi::OsString;
use std::io;
use std::process::Command;
use std::sync::OnceLock;

/// The program, what goes before the command's arguments, and these.
struct Start {
    command: Vec<OsString>,
    arguments: Vec<OsString>,
}

static START: OnceLock<io::Result<Start>> = OnceLock::new();

/// Keeps how this command was started; the first time counts.
pub fn remember(command: io::Result<Vec<OsString>>, arguments: Vec<OsString>) {
    let _ = START.set(command.map(|command| Start { command, arguments }));
}

fn start() -> io::Result<&'static Start> {
    match START.get() {
        Some(Ok(start)) if !start.command.is_empty() => Ok(start),
        Some(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "how this command was started is not known")),
    }
}

/// This command, with arguments yet to be added.
pub fn bare() -> io::Result<Command> {
    let Start { command, .. } = start()?;
    let mut bare = Command::new(&command[0]);
    bare.args(&command[1..]);
    Ok(bare)
}

/// This very command as a rank: with the same arguments, and `--member` right behind the tool's name, where no argument can
/// swallow it.
pub fn with_arguments() -> io::Result<Vec<OsString>> {
    let Start { command, arguments } = start()?;
    let (tool, rest) = arguments.split_at(arguments.len().min(1));
    Ok([command, tool, &["--member".into()], rest].concat())
}
