//! What the figures were measured on: without it they mean nothing.

use std::process::Command;

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    pub kernel: String,
    /// UTC.
    pub date: String,
    /// The load average of the last minute when the run began: well below 1 on a machine fit for measuring.
    pub load: String,
    pub command_line: String,
}

impl Machine {
    pub fn here() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu =
            cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Machine {
            cpu: cpu.map_or("unknown", |(_, model)| model.trim()).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: first_line("uname", &["-sr"]).unwrap_or_default(),
            date: first_line("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]).unwrap_or_default(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            command_line: command_line(),
        }
    }
}

/// The command without the program's own path and the working directory: they say where somebody keeps their files, and
/// nothing else.
fn command_line() -> String {
    let here = std::env::current_dir().map(|here| format!("{}/", here.display()));
    let arguments = std::env::args().skip(1);
    let arguments = arguments.map(|argument| match &here {
        Ok(here) => argument.replace(here, ""),
        Err(_) => argument,
    });
    std::iter::once("peers".to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// The first line that a command prints, on whichever of its two outputs; `None` if it cannot be run.
pub fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).lines().find(|line| !line.trim().is_empty())?.trim().to_owned())
}
