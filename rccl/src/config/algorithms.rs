//! `RCCL_ALGO`: which algorithms may run, in NCCL's syntax.

use super::{Value, nearest};
use crate::error::{Error, Result};
use rccl_schedule::{Algorithm, Collective};
use std::fmt;

/// Rules for the choice of an algorithm.
///
/// ```text
/// rules = rule *(";" rule)
/// rule  = [collective ":"] ["^"] word *("," word)
/// ```
///
/// A rule allows the algorithms that it names, or with `^` all but those. One with a collective replaces the general
/// one for that collective.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Algorithms {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    collective: Option<&'static str>,
    exclude: bool,
    words: Vec<&'static str>,
}

impl Algorithms {
    /// Those of `candidates` (words of algorithms that can do `collective`) that may run, in their order.
    ///
    /// A general rule that leaves none is about other collectives and does not count: with `RCCL_ALGO=tree`, a
    /// broadcast that knows no tree runs all the same.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] when a rule that names this collective leaves none.
    pub fn restrict<'a>(&self, collective: &str, candidates: &[&'a str]) -> Result<Vec<&'a str>> {
        let rule = |of: Option<&str>| self.rules.iter().rev().find(|rule| rule.collective == of);
        let Some(rule) = rule(Some(collective)).or_else(|| rule(None)) else {
            return Ok(candidates.to_vec());
        };
        let left: Vec<&str> =
            candidates.iter().copied().filter(|word| rule.words.contains(word) != rule.exclude).collect();
        match (left.is_empty(), rule.collective) {
            (false, _) => Ok(left),
            (true, None) => Ok(candidates.to_vec()),
            (true, Some(_)) => Err(Error::InvalidSetting {
                name: "RCCL_ALGO".into(),
                value: self.show(),
                expected: format!(
                    "at least one algorithm that does {}: {}",
                    collective,
                    candidates.join(", ")
                ),
            }),
        }
    }
}

impl Value for Algorithms {
    fn parse(text: &str) -> Result<Self, String> {
        let rules = text.split(';').filter(|rule| !rule.trim().is_empty()).map(parse_rule);
        Ok(Algorithms { rules: rules.collect::<Result<_, _>>()? })
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Algorithms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rules.is_empty() {
            return f.write_str("-");
        }
        let rules = self.rules.iter().map(|rule| {
            let collective = rule.collective.map_or_else(String::new, |collective| format!("{collective}:"));
            format!("{collective}{}{}", if rule.exclude { "^" } else { "" }, rule.words.join(","))
        });
        f.write_str(&rules.collect::<Vec<_>>().join(";"))
    }
}

fn parse_rule(rule: &str) -> Result<Rule, String> {
    let (collective, list) = match rule.split_once(':') {
        Some((name, list)) => (Some(parse_collective(name.trim())?), list.trim()),
        None => (None, rule.trim()),
    };
    let (exclude, list) = match list.strip_prefix('^') {
        Some(list) => (true, list),
        None => (false, list),
    };
    Ok(Rule { collective, exclude, words: list.split(',').map(parse_word).collect::<Result<_, _>>()? })
}

/// `all_reduce`, `allreduce` and `AllReduce` all mean the same.
fn parse_collective(name: &str) -> Result<&'static str, String> {
    let words = Collective::ALL.map(|collective| collective.word());
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    words
        .into_iter()
        .find(|word| plain(word) == plain(name))
        .ok_or_else(|| format!("one of the collectives {} before `:`, not `{name}`", words.join(", ")))
}

fn parse_word(word: &str) -> Result<&'static str, String> {
    let (word, words) = (word.trim(), Algorithm::ALL.map(|algorithm| algorithm.word()));
    words.into_iter().find(|known| known.eq_ignore_ascii_case(word)).ok_or_else(|| {
        let meant =
            nearest(word, words).map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
        format!("algorithms out of {}, not `{word}`{meant}", words.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_restrict_what_they_name() {
        let rules = Algorithms::parse("ring,tree;allreduce:^tree").unwrap();
        let all_reduce = ["ring", "tree", "direct"];
        assert_eq!(rules.restrict("all_reduce", &all_reduce).unwrap(), ["ring", "direct"]);
        // Neither ring nor tree broadcasts here: the general rule is about others.
        assert_eq!(rules.restrict("broadcast", &["chain"]).unwrap(), ["chain"]);
        assert_eq!(rules.restrict("broadcast", &["chain", "ring"]).unwrap(), ["ring"]);
        assert_eq!(Algorithms::default().restrict("all_reduce", &all_reduce).unwrap(), all_reduce);
        assert_eq!(Algorithms::parse(&rules.show()), Ok(rules));

        let impossible = Algorithms::parse("broadcast:doubling").unwrap();
        let error = impossible.restrict("broadcast", &["chain", "binomial"]).unwrap_err();
        assert!(error.to_string().contains("chain, binomial"), "{error}");
    }

    #[test]
    fn an_unknown_word_lists_the_known_ones() {
        let expected = Algorithms::parse("ring,trea").unwrap_err();
        assert!(
            expected.contains("did you mean `tree`") && expected.contains("pipelined_tree"),
            "{expected}"
        );
        assert!(Algorithms::parse("gaffer:ring").unwrap_err().contains("broadcast"));
        assert!(Algorithms::parse("all_reduce:").is_err());
    }
}
