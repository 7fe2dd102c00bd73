//! The environment, as launchers' variables are read from it.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// A snapshot of the environment; tests make their own.
pub(super) struct Vars(BTreeMap<String, String>);

impl Vars {
    pub(super) fn from_process() -> Vars {
        let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
        Vars(std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect())
    }

    #[cfg(test)]
    pub(super) fn of(list: &[(&str, &str)]) -> Vars {
        Vars(list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    /// The value; an empty one counts as unset.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A number that a launcher must have written right.
    pub(super) fn number(&self, name: &str) -> Result<Option<u32>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Error::InvalidSetting {
            name: name.into(),
            value: text.into(),
            expected: "a whole number, as a launcher sets it".into(),
        })
    }

    /// A number that nothing depends on.
    pub(super) fn hint(&self, name: &str) -> Option<u32> {
        self.text(name)?.parse().ok()
    }
}
