//! The settings as a table, for `rccl env` and the documentation.

use super::settings::ENTRIES;
use super::sources::Loaded;
use super::{Config, Source};
use crate::error::Result;
use std::fmt::Write;

/// A setting as it is in this process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Setting {
    /// `RCCL_X`.
    pub name: &'static str,
    /// `NCCL_X`, where that is read too.
    pub nccl: Option<&'static str>,
    /// The value in force, as a user would write it; `-` where there is none, and never a secret.
    pub value: String,
    /// Where the value was found.
    pub source: Source,
    /// The value without any source.
    pub default: String,
    /// What it does, in Markdown, on one line.
    pub meaning: String,
}

/// Every setting with its value in this process and where that came from.
///
/// # Errors
/// As [`Config::from_env`].
pub fn settings() -> Result<Vec<Setting>> {
    let loaded = Loaded::from_process()?;
    Ok(rows(&loaded.config, &loaded.sources))
}

/// The documentation's page of settings.
pub fn settings_markdown() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         Generated from `rccl/src/config/settings.rs`; `cargo test -p rccl settings_page` says how to bring it up to\n\
         date. `rccl env` prints the same list with the values that are in force and where each was found.\n\n\
         | setting | default | meaning |\n|---|---|---|\n",
    );
    for row in rows(&Config::default(), &[]) {
        let nccl = row.nccl.map_or_else(String::new, |name| format!(" (or `{name}`)"));
        let default = if row.default == "-" { String::new() } else { format!("`{}`", row.default) };
        let _ = writeln!(page, "| `{}`{nccl} | {default} | {} |", row.name, row.meaning);
    }
    page.push_str(
        "\nTimes are seconds, or have a unit: `500ms`, `1.5s`, `10m`, `2h`. Sizes are bytes, or have a unit: `128K`,\n\
         `4M`, `1G`. An empty value counts as unset.\n\n\
         A value is looked for in the environment, then in the file named by `RCCL_CONF_FILE` or else `~/.rccl.conf` and\n\
         `/etc/rccl.conf` (lines `RCCL_X=value`, `#` for comments), then under the `NCCL_` name in the environment where\n\
         the table gives one. A value that cannot be used is an error under the `RCCL_` name, and ignored under the\n\
         `NCCL_` name, which somebody else may have set for somebody else.\n\n\
         What the PyTorch backend reads besides, `RCCL_REPLACE_GLOO` and `RCCL_TORCH_...`, is in its\n\
         [README](../ffi/python/README.md#pytorch).\n",
    );
    page
}

fn rows(config: &Config, sources: &[Source]) -> Vec<Setting> {
    let defaults = Config::default();
    let row = |(index, entry): (usize, &super::settings::Entry)| Setting {
        name: entry.name,
        nccl: entry.nccl,
        value: (entry.show)(config),
        source: sources.get(index).cloned().unwrap_or(Source::Default),
        default: (entry.show)(&defaults),
        meaning: entry.meaning.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    ENTRIES.iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// With `WRITE_DOCS=1` the page is written instead of compared.
    #[test]
    fn settings_page_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
        if std::env::var_os("WRITE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, settings_markdown()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == settings_markdown(),
            "docs/settings.md is not what the settings are: WRITE_DOCS=1 cargo test -p rccl settings_page"
        );
    }

    #[test]
    fn every_setting_has_a_name_and_a_meaning() {
        let rows = rows(&Config::default(), &[]);
        for row in &rows {
            assert!(row.name.starts_with("RCCL_") && row.meaning.ends_with('.'), "{row:?}");
            assert_eq!(rows.iter().filter(|other| other.name == row.name).count(), 1, "{} twice", row.name);
        }
    }
}
