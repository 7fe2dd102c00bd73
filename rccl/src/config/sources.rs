//! Where values come from: the environment, the configuration file, NCCL's names.

use super::settings::{ENTRIES, Entry};
use super::{Config, init_logging, nearest};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

/// Where a setting's value was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: it has its default.
    Default,
    /// In the environment, under the `RCCL_` name.
    Environment,
    /// In a configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In the environment, under this `NCCL_` name.
    Nccl(&'static str),
}

/// `default`, `environment`, `/etc/rccl.conf:3`, `NCCL_DEBUG`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::Environment => f.write_str("environment"),
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::Nccl(name) => f.write_str(name),
        }
    }
}

impl Config {
    /// The settings of this process, from the environment and the configuration file.
    ///
    /// Logging is set up as [`init_logging`] says, because the first things worth a line are found here: unknown
    /// `RCCL_` names (with the nearest known one) and `NCCL_` values that had to be ignored. Each process logs them
    /// once. Reads up to two small files; does not block otherwise.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for a value that cannot be used, or a file named by `RCCL_CONF_FILE` that cannot be
    /// read; it names where the value stands.
    pub fn from_env() -> Result<Config> {
        let loaded = Loaded::from_process()?;
        init_logging(&loaded.config);
        static ONCE: Once = Once::new();
        ONCE.call_once(|| loaded.notes.iter().for_each(Note::log));
        Ok(loaded.config)
    }

    /// The settings that these variables and nothing else make; for tests and for programs that have settings of
    /// their own. Names that are no settings are ignored.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for a value that cannot be used.
    pub fn from_vars<N: Into<String>, V: Into<String>>(
        vars: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Config> {
        let vars = vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Ok(Loaded::from(&vars, &[])?.config)
    }

    /// Sets one setting, by its `RCCL_` name, as if the environment had it.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for an unknown name or a value that cannot be used.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let known = ENTRIES.iter().find(|entry| entry.name == name).ok_or_else(|| Error::InvalidSetting {
            name: name.into(),
            value: value.into(),
            expected: match nearest(name, ENTRIES.iter().map(|entry| entry.name)) {
                Some(near) => format!("a known setting; did you mean {near}?"),
                None => "a known setting; `rccl env` lists them".into(),
            },
        })?;
        known.assign(self, name, value)
    }
}

impl Entry {
    /// Sets the field. `origin` is what the user reads in the error: the name, with the file's line if there is one.
    fn assign(&self, config: &mut Config, origin: &str, value: &str) -> Result<()> {
        (self.set)(config, value).map_err(|expected| Error::InvalidSetting {
            name: origin.into(),
            value: if self.name == "RCCL_KEY" { "(secret)".into() } else { value.into() },
            expected,
        })
    }
}

/// All settings with their sources.
pub(super) struct Loaded {
    pub config: Config,
    /// Parallel to `ENTRIES`.
    pub sources: Vec<Source>,
    pub notes: Vec<Note>,
}

/// Something that the user should know, kept until logging is set up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A name that no setting has; `place` is a file's line or the environment.
    Unknown { name: String, place: String },
    /// A value for NCCL that rccl cannot use.
    Ignored { name: &'static str, value: String, expected: String },
}

impl Note {
    fn log(&self) {
        match self {
            Note::Unknown { name, place } => match nearest(name, ENTRIES.iter().map(|entry| entry.name)) {
                Some(near) => tracing::warn!("{name} ({place}) is no setting; did you mean {near}?"),
                None => tracing::warn!("{name} ({place}) is no setting; `rccl env` lists them"),
            },
            Note::Ignored { name, value, expected } => {
                tracing::debug!("{name}={value} is ignored: expected {expected}");
            }
        }
    }
}

/// A value that was found, before it is parsed.
struct Found<'a> {
    value: &'a str,
    source: Source,
}

impl Loaded {
    pub(super) fn from_process() -> Result<Loaded> {
        let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
        let vars = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        let files = conf_files(&vars)?;
        Loaded::from(&vars, &files)
    }

    fn from(vars: &BTreeMap<String, String>, files: &[ConfFile]) -> Result<Loaded> {
        let mut loaded =
            Loaded { config: Config::default(), sources: Vec::new(), notes: unknown(vars, files) };
        for entry in ENTRIES {
            let source = match find(entry, vars, files) {
                Some(found) => {
                    let origin = match &found.source {
                        Source::File { .. } => format!("{} ({})", entry.name, found.source),
                        _ => entry.name.to_owned(),
                    };
                    entry.assign(&mut loaded.config, &origin, found.value)?;
                    found.source
                }
                None => loaded.read_nccl(entry, vars),
            };
            loaded.sources.push(source);
        }
        Ok(loaded)
    }

    fn read_nccl(&mut self, entry: &Entry, vars: &BTreeMap<String, String>) -> Source {
        let Some(name) = entry.nccl else { return Source::Default };
        let Some(value) = vars.get(name).filter(|value| !value.is_empty()) else { return Source::Default };
        match (entry.set)(&mut self.config, value) {
            Ok(()) => Source::Nccl(name),
            Err(expected) => {
                self.notes.push(Note::Ignored { name, value: value.clone(), expected });
                Source::Default
            }
        }
    }
}

fn find<'a>(entry: &Entry, vars: &'a BTreeMap<String, String>, files: &'a [ConfFile]) -> Option<Found<'a>> {
    if let Some(value) = vars.get(entry.name).filter(|value| !value.is_empty()) {
        return Some(Found { value, source: Source::Environment });
    }
    files.iter().find_map(|file| {
        // The last line wins, as it would if a shell read the file.
        let line = file.lines.iter().rev().find(|line| line.name == entry.name && !line.value.is_empty())?;
        let source = Source::File { path: file.path.to_path_buf(), line: line.number };
        Some(Found { value: &line.value, source })
    })
}

fn unknown(vars: &BTreeMap<String, String>, files: &[ConfFile]) -> Vec<Note> {
    // What the project's own tests are told by is no business of its users; the torch backend reads its own.
    let elsewhere = |name: &str| {
        name.starts_with("RCCL_TEST_") || name.starts_with("RCCL_TORCH_") || name == "RCCL_REPLACE_GLOO"
    };
    let known = |name: &str| elsewhere(name) || ENTRIES.iter().any(|entry| entry.name == name);
    let in_vars = vars.keys().filter(|name| name.starts_with("RCCL_") && !known(name));
    let in_vars = in_vars.map(|name| Note::Unknown { name: name.clone(), place: "environment".into() });
    let in_files = files.iter().flat_map(|file| {
        file.lines.iter().filter(|line| !known(&line.name)).map(|line| Note::Unknown {
            name: line.name.clone(),
            place: format!("{}:{}", file.path.display(), line.number),
        })
    });
    in_vars.chain(in_files).collect()
}

/// A configuration file that was read: `NAME=value` lines, `#` starts a comment line, blanks around both are dropped.
struct ConfFile {
    path: Arc<Path>,
    lines: Vec<ConfLine>,
}

struct ConfLine {
    number: usize,
    name: String,
    value: String,
}

impl ConfFile {
    fn parse(path: &Path, text: &str) -> Result<ConfFile> {
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate().map(|(index, line)| (index, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, value)) = line.split_once('=') else {
                return Err(Error::InvalidSetting {
                    name: format!("{}:{}", path.display(), index + 1),
                    value: line.into(),
                    expected: "a line RCCL_X=value, or # and a comment".into(),
                });
            };
            lines.push(ConfLine { number: index + 1, name: name.trim().into(), value: value.trim().into() });
        }
        Ok(ConfFile { path: path.into(), lines })
    }
}

/// The configuration files that apply, the stronger first. Only one that the user named must exist.
fn conf_files(vars: &BTreeMap<String, String>) -> Result<Vec<ConfFile>> {
    if let Some(path) = vars.get("RCCL_CONF_FILE").filter(|path| !path.is_empty()) {
        let text = std::fs::read_to_string(path).map_err(|error| Error::InvalidSetting {
            name: "RCCL_CONF_FILE".into(),
            value: path.clone(),
            expected: format!("a file that can be read ({error})"),
        })?;
        return Ok(vec![ConfFile::parse(Path::new(path), &text)?]);
    }
    let home = vars.get("HOME").map(|home| Path::new(home).join(".rccl.conf"));
    let usual = home.into_iter().chain([PathBuf::from("/etc/rccl.conf")]);
    let readable = usual.filter_map(|path| std::fs::read_to_string(&path).ok().map(|text| (path, text)));
    readable.map(|(path, text)| ConfFile::parse(&path, &text)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use std::time::Duration;

    fn vars(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn source_of(loaded: &Loaded, name: &str) -> Source {
        let index = ENTRIES.iter().position(|entry| entry.name == name).unwrap();
        loaded.sources[index].clone()
    }

    #[test]
    fn the_environment_goes_before_the_file_and_the_file_before_nccl() {
        let file = ConfFile::parse(
            Path::new("/etc/rccl.conf"),
            "# ours\nRCCL_TIMEOUT = 20s\n\nRCCL_DEBUG=INFO\nRCCL_SILENCE_WARN=1\nRCCL_SILENCE_WARN=2\n",
        );
        let vars =
            vars(&[("RCCL_TIMEOUT", "10"), ("NCCL_DEBUG", "TRACE"), ("NCCL_HOSTID", "a"), ("RCCL_ALGO", "")]);
        let loaded = Loaded::from(&vars, &[file.unwrap()]).unwrap();
        assert_eq!(loaded.config.timeout, Duration::from_secs(10));
        assert_eq!(loaded.config.debug, Level::Info);
        assert_eq!(loaded.config.silence_warn, Duration::from_secs(2));
        assert_eq!(loaded.config.host_id.as_deref(), Some("a"));
        assert_eq!(source_of(&loaded, "RCCL_TIMEOUT"), Source::Environment);
        assert_eq!(source_of(&loaded, "RCCL_DEBUG").to_string(), "/etc/rccl.conf:4");
        assert_eq!(source_of(&loaded, "RCCL_HOSTID"), Source::Nccl("NCCL_HOSTID"));
        assert_eq!(source_of(&loaded, "RCCL_ALGO"), Source::Default);
    }

    #[test]
    fn a_bad_value_is_an_error_in_rccl_and_a_note_in_nccl() {
        let error = Config::from_vars([("RCCL_DEBUG", "LOUD")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "RCCL_DEBUG=LOUD: expected one of NONE, WARN, VERSION, INFO, DEBUG, TRACE"
        );
        let loaded = Loaded::from(&vars(&[("NCCL_DEBUG", "LOUD"), ("NCCL_ALGO", "nonsense")]), &[]).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(matches!(loaded.notes[..], [Note::Ignored { name: "NCCL_DEBUG", .. }]));
        let file = ConfFile::parse(Path::new("c"), "RCCL_TIMEOUT=soon").unwrap();
        let error = Loaded::from(&BTreeMap::new(), &[file]).err().unwrap();
        assert!(error.to_string().starts_with("RCCL_TIMEOUT (c:1)=soon: expected a time"), "{error}");
        let error = Config::from_vars([("RCCL_KEY", "hunter2")]).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(ConfFile::parse(Path::new("c"), "what").is_err());
    }

    #[test]
    fn unknown_names_are_noted() {
        let loaded = Loaded::from(&vars(&[("RCCL_TIMEOT", "1"), ("OTHER", "1")]), &[]).unwrap();
        let place = "environment".into();
        assert_eq!(loaded.notes, [Note::Unknown { name: "RCCL_TIMEOT".into(), place }]);
        let error = Config::default().set("RCCL_TIMEOT", "1").unwrap_err();
        assert!(error.to_string().contains("did you mean RCCL_TIMEOUT?"), "{error}");
    }

    #[test]
    fn every_default_can_be_written_by_a_user() {
        for entry in ENTRIES {
            let shown = (entry.show)(&Config::default());
            if shown != "-" {
                let mut config = Config::default();
                (entry.set)(&mut config, &shown).unwrap_or_else(|e| panic!("{}={shown}: {e}", entry.name));
                assert_eq!(config, Config::default(), "{}", entry.name);
            }
        }
    }
}
