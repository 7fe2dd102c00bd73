//! `rccl env`: every setting, with its value here and where that came from.

use std::process::ExitCode;

/// List every setting: name, value, where the value was found, default, meaning.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rccl env                          what is in force in this shell
  RCCL_TIMEOUT=30 rccl env          would this value be accepted?
  rccl env --json | jq '.[] | select(.source != \"default\")'")]
pub struct Options {
    /// Print JSON: a list of objects with name, value, source, default, meaning
    #[arg(long)]
    json: bool,
    /// Print the documentation's page, docs/settings.md
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

pub fn main(options: &Options) -> ExitCode {
    let text = if options.markdown {
        rccl::config::settings_markdown()
    } else {
        // Logs the names that are no settings.
        let settings = match rccl::Config::from_env().and_then(|_| rccl::config::settings()) {
            Ok(settings) => settings,
            Err(error) => return crate::complain(error),
        };
        if options.json { json(&settings) } else { table(&settings) }
    };
    crate::print(&text)
}

fn json(settings: &[rccl::config::Setting]) -> String {
    let rows = settings.iter().map(|setting| {
        serde_json::json!({
            "name": setting.name,
            "value": setting.value,
            "source": setting.source.to_string(),
            "default": setting.default,
            "meaning": setting.meaning,
        })
    });
    format!("{:#}\n", serde_json::Value::Array(rows.collect()))
}

fn table(settings: &[rccl::config::Setting]) -> String {
    let heads = ["SETTING", "VALUE", "SOURCE", "DEFAULT"].map(str::to_owned);
    let rows = settings.iter().map(|setting| {
        [setting.name.to_owned(), setting.value.clone(), setting.source.to_string(), setting.default.clone()]
    });
    let rows: Vec<[String; 4]> = std::iter::once(heads).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let meanings = std::iter::once("MEANING").chain(settings.iter().map(|setting| setting.meaning.as_str()));
    rows.iter().zip(meanings).fold(String::new(), |text, (row, meaning)| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
        text + &cells.collect::<String>() + meaning + "\n"
    })
}
