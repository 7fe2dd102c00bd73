//! A small `tracing` subscriber that writes one line an event.

use super::{Config, Level, Subsystems};
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::field::{Field, Visit};
use tracing::{Metadata, span};

/// Makes rccl's log visible, unless the program has a `tracing` subscriber of its own, which then gets the events
/// instead.
///
/// Binaries call this first thing. [`Config::from_env`], and with it `Communicator::from_env`, calls it too, because a
/// fallback to something slower must never be silent, not in a program that never heard of `tracing` either. A program
/// with a subscriber of its own installs it before that (or sets `RCCL_DEBUG=NONE`, which installs nothing).
///
/// Lines go to standard error, or are appended to `RCCL_DEBUG_FILE`:
///
/// ```text
/// node1:4711:3 rccl WARN no shared memory with rank 2 (...)
/// ^host ^pid ^rank, - before it is known
/// ```
pub fn init_logging(config: &Config) {
    if config.debug == Level::None || tracing::dispatcher::has_been_set() {
        return;
    }
    let logger = Logger::new(config);
    if config.debug >= Level::Version {
        write_line("VERSION", &format!("rccl {}", env!("CARGO_PKG_VERSION")), &logger.file);
    }
    // Losing the race against another thread's subscriber is fine: events then go there.
    let _ = tracing::subscriber::set_global_default(logger);
}

/// The rank that log lines of this process carry; of several communicators or ranks in a process the first counts.
pub(crate) fn set_rank(rank: u32) {
    let _ = RANK.compare_exchange(NO_RANK, u64::from(rank), Ordering::Relaxed, Ordering::Relaxed);
}

static RANK: AtomicU64 = AtomicU64::new(NO_RANK);
const NO_RANK: u64 = u64::MAX;

struct Logger {
    level: tracing::level_filters::LevelFilter,
    subsystems: Subsystems,
    /// `None`: standard error.
    file: Mutex<Option<File>>,
}

impl Logger {
    fn new(config: &Config) -> Logger {
        let file = config.debug_file.as_deref().and_then(open_log);
        Logger {
            level: match config.debug {
                Level::None => tracing::level_filters::LevelFilter::OFF,
                Level::Warn | Level::Version => tracing::level_filters::LevelFilter::WARN,
                Level::Info => tracing::level_filters::LevelFilter::INFO,
                Level::Debug => tracing::level_filters::LevelFilter::DEBUG,
                Level::Trace => tracing::level_filters::LevelFilter::TRACE,
            },
            subsystems: config.debug_subsys.clone(),
            file: Mutex::new(file),
        }
    }
}

/// Spans are not shown: events carry all that a line needs.
impl tracing::Subscriber for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Other crates' events in the host program are none of our business.
        let ours = metadata.target().split("::").next().is_some_and(|name| name.starts_with("rccl"));
        let wanted = *metadata.level() <= tracing::Level::WARN || self.subsystems.allows(metadata.target());
        metadata.is_event() && ours && wanted && *metadata.level() <= self.level
    }
    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.level)
    }
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        write_line(
            event.metadata().level().as_str(),
            &format!("{}{}", line.message, line.fields),
            &self.file,
        );
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The message first, then the other fields as ` name=value`.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

fn write_line(level: &str, text: &str, file: &Mutex<Option<File>>) {
    let rank = match RANK.load(Ordering::Relaxed) {
        NO_RANK => "-".to_owned(),
        rank => rank.to_string(),
    };
    let line = format!("{}:{}:{rank} rccl {level} {text}\n", host_name(), std::process::id());
    let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // One write for the whole line, so that the lines of several processes do not mix. There is nobody to tell when
    // a log cannot be written.
    let _ = match file.as_mut() {
        Some(file) => file.write_all(line.as_bytes()),
        None => std::io::stderr().write_all(line.as_bytes()),
    };
}

fn open_log(pattern: &Path) -> Option<File> {
    let path = pattern.to_string_lossy();
    let path = path.replace("%h", &host_name()).replace("%p", &std::process::id().to_string());
    match File::options().append(true).create(true).open(&path) {
        Ok(file) => Some(file),
        Err(error) => {
            let text =
                format!("cannot write the log to RCCL_DEBUG_FILE={path}: {error}; using standard error");
            write_line("WARN", &text, &Mutex::new(None));
            None
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_host_pid_rank_and_obey_the_level() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            debug: Level::Info,
            debug_subsys: super::super::Value::parse("^NET").unwrap(),
            debug_file: Some(directory.path().join("log.%p")),
            ..Config::default()
        };
        tracing::subscriber::with_default(Logger::new(&config), || {
            tracing::warn!(peer = 2, "no shared memory");
            tracing::info!("chosen");
            tracing::debug!("not shown");
            tracing::info!(target: "rccl_transport::tcp", "not asked for");
            tracing::warn!(target: "rccl_transport::tcp", "always");
            tracing::warn!(target: "hyper", "not ours");
        });
        let path = directory.path().join(format!("log.{}", std::process::id()));
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let front = format!("{}:{}:", host_name(), std::process::id());
        assert!(lines.iter().all(|line| line.starts_with(&front)), "{text}");
        let tails: Vec<&str> = lines.iter().map(|line| line.split_once(" rccl ").unwrap().1).collect();
        assert_eq!(tails, ["WARN no shared memory peer=2", "INFO chosen", "WARN always"]);
    }
}
