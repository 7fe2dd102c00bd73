//! `RCCL_ALGO`: which algorithms may run, in NCCL's syntax.

use super::{Value, nearest};
use crate::call::Collective;
use crate::error::{Error, Result};

/// The words that name algorithms.
pub const ALGORITHM_WORDS: [&str; 11] = [
    "ring",
    "tree",
    "doubling",
    "halving",
    "direct",
    "exchange",
    "hierarchical",
    "chain",
    "binomial",
    "pipelined_tree",
    "scatter_allgather",
];

const COLLECTIVES: [Collective; 2] = [Collective::AllReduce, Collective::Broadcast];

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
    collective: Option<Collective>,
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
    pub fn restrict<'a>(&self, collective: Collective, candidates: &[&'a str]) -> Result<Vec<&'a str>> {
        let rule = |of: Option<Collective>| self.rules.iter().rev().find(|rule| rule.collective == of);
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
                    collective.name(),
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
        if self.rules.is_empty() {
            return "-".into();
        }
        let rules = self.rules.iter().map(|rule| {
            let collective =
                rule.collective.map_or_else(String::new, |collective| format!("{}:", collective.name()));
            format!("{collective}{}{}", if rule.exclude { "^" } else { "" }, rule.words.join(","))
        });
        rules.collect::<Vec<_>>().join(";")
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
fn parse_collective(name: &str) -> Result<Collective, String> {
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    COLLECTIVES.into_iter().find(|collective| plain(collective.name()) == plain(name)).ok_or_else(|| {
        let known: Vec<_> = COLLECTIVES.iter().map(|collective| collective.name()).collect();
        format!("one of the collectives {} before `:`, not `{name}`", known.join(", "))
    })
}

fn parse_word(word: &str) -> Result<&'static str, String> {
    let word = word.trim();
    ALGORITHM_WORDS.into_iter().find(|known| known.eq_ignore_ascii_case(word)).ok_or_else(|| {
        let meant = nearest(word, ALGORITHM_WORDS)
            .map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
        format!("algorithms out of {}, not `{word}`{meant}", ALGORITHM_WORDS.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_restrict_what_they_name() {
        let rules = Algorithms::parse("ring,tree;allreduce:^tree").unwrap();
        let all_reduce = ["ring", "tree", "direct"];
        assert_eq!(rules.restrict(Collective::AllReduce, &all_reduce).unwrap(), ["ring", "direct"]);
        // Neither ring nor tree broadcasts here: the general rule is about others.
        assert_eq!(rules.restrict(Collective::Broadcast, &["chain"]).unwrap(), ["chain"]);
        assert_eq!(rules.restrict(Collective::Broadcast, &["chain", "ring"]).unwrap(), ["ring"]);
        assert_eq!(Algorithms::default().restrict(Collective::AllReduce, &all_reduce).unwrap(), all_reduce);
        assert_eq!(Algorithms::parse(&rules.show()), Ok(rules));

        let impossible = Algorithms::parse("broadcast:doubling").unwrap();
        let error = impossible.restrict(Collective::Broadcast, &["chain", "binomial"]).unwrap_err();
        assert!(error.to_string().contains("chain, binomial"), "{error}");
    }

    #[test]
    fn an_unknown_word_lists_the_known_ones() {
        let expected = Algorithms::parse("ring,trea").unwrap_err();
        assert!(
            expected.contains("did you mean `tree`") && expected.contains("pipelined_tree"),
            "{expected}"
        );
        assert!(Algorithms::parse("gather:ring").unwrap_err().contains("broadcast"));
        assert!(Algorithms::parse("all_reduce:").is_err());
    }
}
