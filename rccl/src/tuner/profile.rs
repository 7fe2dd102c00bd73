//! Profiles: which algorithm is best for which sizes, on the layouts that were measured or simulated.
//!
//! A profile is a TOML file, as `rccl tune` writes it:
//!
//! ```toml
//! [[layout]]
//! ranks = 8
//! hosts = 4
//! path = "tcp"
//! all_reduce = "doubling up to 4K, hierarchical_halving up to 256K, hierarchical"
//! reduce = "pipelined_tree in chunks of 8K up to 512K, chain"
//! ```
//!
//! Sizes are bytes of a rank's data; of reduce_scatter, all_gather, all_to_all, gather and scatter, of one block.
//! What a layout does not name is decided as without the profile.

use crate::config::{Bytes, ChunkSize, Chunks, Value};
use rccl_schedule::{Algorithm, Collective};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// What joins ranks: between hosts what joins those, on one host shared memory or what stands in for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Path {
    /// Shared memory.
    #[serde(rename = "shm")]
    Shm,
    /// RDMA.
    #[serde(rename = "verbs")]
    Verbs,
    /// TCP.
    #[serde(rename = "tcp")]
    Tcp,
}

impl Path {
    /// The name, as profiles spell it.
    pub fn word(&self) -> &'static str {
        match self {
            Path::Shm => "shm",
            Path::Verbs => "verbs",
            Path::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// How a call runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// By this.
    pub algorithm: Algorithm,
    /// In chunks of this size; `None`: as long as the engine has them.
    pub chunk: Option<ChunkSize>,
}

impl From<Algorithm> for Choice {
    fn from(algorithm: Algorithm) -> Choice {
        Choice { algorithm, chunk: None }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chunk {
            Some(chunk) => write!(f, "{}{IN_CHUNKS}{chunk}", self.algorithm),
            None => write!(f, "{}", self.algorithm),
        }
    }
}

impl Choice {
    /// Reads what is displayed.
    fn parse(text: &str, collective: &Collective) -> Result<Choice, String> {
        let (algorithm, chunk) = match text.split_once(IN_CHUNKS) {
            Some((algorithm, size)) => {
                let size = size.trim();
                let chunk = ChunkSize::parse(size)
                    .map_err(|expected| format!("expected {expected}, not {size:?}"))?;
                (algorithm, Some(chunk))
            }
            None => (text, None),
        };
        let algorithm = Algorithm::parse(algorithm.trim(), collective).map_err(|error| error.to_string())?;
        Ok(Choice { algorithm, chunk })
    }
}

/// What stands between an algorithm and the size of its chunks.
const IN_CHUNKS: &str = " in chunks of ";

/// What is best for calls of at most so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Words", into = "Words")]
pub struct Rule {
    /// Of this; its root is 0.
    pub collective: Collective,
    /// The best.
    pub choice: Choice,
    /// Up to so many bytes, these included; [`u64::MAX`] for all.
    pub up_to: u64,
}

/// A rule as it travels.
type Words = (String, String, u64);

impl From<Rule> for Words {
    fn from(rule: Rule) -> Words {
        (rule.collective.word().into(), rule.choice.to_string(), rule.up_to)
    }
}

impl TryFrom<Words> for Rule {
    type Error = String;
    fn try_from((collective, choice, up_to): Words) -> Result<Rule, String> {
        let known = Collective::ALL.into_iter().find(|known| known.word() == collective);
        let collective = known.ok_or_else(|| format!("no collective is called {collective:?}"))?;
        Ok(Rule { collective, choice: Choice::parse(&choice, &collective)?, up_to })
    }
}

/// What is best on one layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuned {
    /// How many ranks.
    pub ranks: u32,
    /// On how many hosts.
    pub hosts: u32,
    /// What joins the hosts, or the ranks of the one host.
    pub path: Path,
    /// By collective, and of each with ascending sizes.
    pub rules: Vec<Rule>,
}

impl Tuned {
    /// What is best for a call of so many bytes, if any rule is about it.
    pub fn choose(&self, collective: &Collective, bytes: u64) -> Option<Choice> {
        let collective = collective.with_root(0);
        let rule = self.rules.iter().find(|rule| rule.collective == collective && bytes <= rule.up_to);
        rule.map(|rule| rule.choice)
    }
}

/// What is known of several layouts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Each at most once.
    pub layouts: Vec<Tuned>,
    /// The size of all chunks, whatever the layouts say: `RCCL_CHUNK_SIZE`. No part of a file.
    pub chunks: Option<Chunks>,
}

impl Profile {
    /// Most layouts of a profile that a job uses; more would not fit the message in which ranks are told them.
    pub const MOST_LAYOUTS: usize = 64;

    /// What is known of exactly this layout.
    pub fn find(&self, ranks: u32, hosts: u32, path: Path) -> Option<&Tuned> {
        self.layouts.iter().find(|tuned| (tuned.ranks, tuned.hosts, tuned.path) == (ranks, hosts, path))
    }

    /// What is known of the layout that is nearest to this one: whose hosts, and ranks per host, are in the smallest ratio to
    /// these. `None` of an empty profile.
    pub fn nearest(&self, ranks: u32, hosts: u32) -> Option<&Tuned> {
        let apart = |one: u64, other: u64| one.max(other) * 64 / one.min(other).max(1);
        let each = |ranks: u32, hosts: u32| u64::from(ranks) * 64 / u64::from(hosts.max(1));
        self.layouts.iter().min_by_key(|tuned| {
            apart(tuned.hosts.into(), hosts.into())
                * apart(each(tuned.ranks, tuned.hosts), each(ranks, hosts))
        })
    }

    /// Puts a layout in, in the place of what was known of it.
    pub fn insert(&mut self, tuned: Tuned) {
        let same =
            |known: &Tuned| (known.ranks, known.hosts, known.path) == (tuned.ranks, tuned.hosts, tuned.path);
        match self.layouts.iter_mut().find(|known| same(known)) {
            Some(known) => {
                // What was not measured this time stays.
                let kept = |rule: &Rule| !tuned.rules.iter().any(|new| new.collective == rule.collective);
                known.rules.retain(kept);
                known.rules.extend(&tuned.rules);
            }
            None => self.layouts.push(tuned),
        }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// `LINE:COLUMN: what is wrong`.
    pub fn parse(text: &str) -> Result<Profile, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            format!("{}: {}", place(text, at), error.message().replace('\n', "; "))
        })?;
        let mut profile = Profile::default();
        for entry in file.layout {
            let at = place(text, entry.span().start);
            let tuned = entry.into_inner().tuned(text)?;
            if !(1..=tuned.ranks).contains(&tuned.hosts) {
                return Err(format!("{at}: {} ranks on {} hosts", tuned.ranks, tuned.hosts));
            }
            if tuned.hosts > 1 && tuned.path == Path::Shm {
                return Err(format!("{at}: hosts are joined by \"tcp\" or \"verbs\", not by \"shm\""));
            }
            if profile.find(tuned.ranks, tuned.hosts, tuned.path).is_some() {
                let Tuned { ranks, hosts, path, .. } = tuned;
                return Err(format!("{at}: a second layout of {ranks} ranks on {hosts} hosts by {path}"));
            }
            profile.layouts.push(tuned);
        }
        Ok(profile)
    }

    /// The text of a file, which [`Profile::parse`] reads.
    pub fn write(&self) -> String {
        let mut text = String::new();
        for Tuned { ranks, hosts, path, rules } in &self.layouts {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[[layout]]\nranks = {ranks}\nhosts = {hosts}\npath = \"{path}\"\n");
            for collective in Collective::ALL {
                let rules = rules.iter().filter(|rule| rule.collective == collective);
                let words: Vec<String> = rules.map(Rule::word).collect();
                if !words.is_empty() {
                    let _ = writeln!(
                        text,
                        "{collective} = \"{}\"",
                        words.join(", "),
                        collective = collective.word()
                    );
                }
            }
        }
        text
    }
}

impl Rule {
    fn word(&self) -> String {
        match usize::try_from(self.up_to) {
            Ok(bytes) if self.up_to < u64::MAX => format!("{} up to {}", self.choice, Bytes(bytes).show()),
            _ => self.choice.to_string(),
        }
    }
}

/// `LINE:COLUMN` of a place in a text, a number of bytes; both count from 1, columns in characters.
pub fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{line}:{column}")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    layout: Vec<toml::Spanned<Entry>>,
}

type List = Option<toml::Spanned<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    ranks: u32,
    hosts: u32,
    path: Path,
    all_reduce: List,
    reduce: List,
    reduce_scatter: List,
    broadcast: List,
    scatter: List,
    gather: List,
    all_gather: List,
    all_to_all: List,
}

impl Entry {
    fn tuned(self, text: &str) -> Result<Tuned, String> {
        let Entry { ranks, hosts, path, .. } = self;
        // As Collective::ALL has them.
        let lists = [
            self.all_reduce,
            self.reduce,
            self.reduce_scatter,
            self.broadcast,
            self.scatter,
            self.gather,
            self.all_gather,
            self.all_to_all,
        ];
        let mut rules = Vec::new();
        for (collective, list) in Collective::ALL.into_iter().zip(lists) {
            let Some(list) = list else { continue };
            let at = place(text, list.span().start);
            rules.extend(rules_of(collective, list.get_ref()).map_err(|flaw| format!("{at}: {flaw}"))?);
        }
        Ok(Tuned { ranks, hosts, path, rules })
    }
}

/// Reads `CHOICE up to SIZE, …, CHOICE`, each choice an algorithm that may have a size of chunks.
fn rules_of(collective: Collective, list: &str) -> Result<Vec<Rule>, String> {
    let mut rules: Vec<Rule> = Vec::new();
    for words in list.split(',') {
        let (choice, up_to) = match words.split_once(" up to ") {
            Some((choice, size)) => {
                let size = Bytes::parse(size.trim())
                    .map_err(|expected| format!("expected {expected}, not {:?}", size.trim()))?;
                (choice, size.0 as u64)
            }
            None => (words, u64::MAX),
        };
        let choice = Choice::parse(choice, &collective)?;
        if rules.last().is_some_and(|before| before.up_to >= up_to) {
            return Err(format!("sizes ascend, and the last algorithm alone has none: {list:?}"));
        }
        rules.push(Rule { collective, choice, up_to });
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# measured\n\n[[layout]]\nranks = 8\nhosts = 4\npath = \"tcp\"\n\
                        all_reduce = \"doubling up to 4K, hierarchical_halving up to 262144, hierarchical\"\n\
                        broadcast = \"binomial up to 1M\"\n\n[[layout]]\nranks = 4\nhosts = 1\npath = \"shm\"\n";

    #[test]
    fn a_file_says_which_algorithm_is_best() {
        let profile = Profile::parse(FILE).unwrap();
        let tuned = profile.find(8, 4, Path::Tcp).unwrap();
        let all_reduce = |bytes| tuned.choose(&Collective::AllReduce, bytes);
        assert_eq!(
            [0, 4096, 4097, 262_144, 262_145, u64::MAX].map(all_reduce),
            [
                Algorithm::RecursiveDoubling,
                Algorithm::RecursiveDoubling,
                Algorithm::HierarchicalHalving,
                Algorithm::HierarchicalHalving,
                Algorithm::Hierarchical,
                Algorithm::Hierarchical
            ]
            .map(|algorithm| Some(algorithm.into()))
        );
        let broadcast = |bytes| tuned.choose(&Collective::Broadcast { root: 3 }, bytes);
        assert_eq!((broadcast(1 << 20), broadcast((1 << 20) + 1)), (Some(Algorithm::Binomial.into()), None));
        assert_eq!(tuned.choose(&Collective::AllGather, 8), None);
        assert!(profile.find(8, 4, Path::Verbs).is_none() && profile.find(8, 2, Path::Tcp).is_none());
    }

    #[test]
    fn a_choice_may_have_a_size_of_chunks() {
        let file =
            FILE.replace("binomial up to 1M", "chain in chunks of 8K up to 1M, chain in chunks of 64K");
        let profile = Profile::parse(&file).unwrap();
        let tuned = profile.find(8, 4, Path::Tcp).unwrap();
        let chunk = |bytes| tuned.choose(&Collective::Broadcast { root: 0 }, bytes).unwrap().chunk;
        assert_eq!([1 << 20, 1 << 21].map(chunk), [ChunkSize::new(8 << 10), ChunkSize::new(64 << 10)]);
        assert_eq!(tuned.choose(&Collective::AllReduce, 8).unwrap().chunk, None);
    }

    #[test]
    fn what_is_written_is_read() {
        let with_chunks = FILE.replace("binomial up", "binomial in chunks of 4K up");
        let mut profile = Profile::parse(&with_chunks).unwrap();
        assert_ne!(profile, Profile::parse(FILE).unwrap());
        assert_eq!(Profile::parse(&profile.write()), Ok(profile.clone()));
        profile.chunks = Some(Chunks::Usual);
        let sent: Profile = postcard::from_bytes(&postcard::to_allocvec(&profile).unwrap()).unwrap();
        assert_eq!(sent, profile);
    }

    #[test]
    fn a_new_measurement_replaces_what_it_is_about() {
        let mut profile = Profile::parse(FILE).unwrap();
        let (collective, choice) = (Collective::AllReduce, Algorithm::Ring.into());
        let rule = Rule { collective, choice, up_to: u64::MAX };
        profile.insert(Tuned { ranks: 8, hosts: 4, path: Path::Tcp, rules: vec![rule] });
        let tuned = profile.find(8, 4, Path::Tcp).unwrap();
        assert_eq!(tuned.choose(&Collective::AllReduce, 8), Some(Algorithm::Ring.into()));
        assert_eq!(tuned.choose(&Collective::Broadcast { root: 0 }, 8), Some(Algorithm::Binomial.into()));
        profile.insert(Tuned { ranks: 2, hosts: 2, path: Path::Tcp, rules: vec![rule] });
        assert_eq!(profile.layouts.len(), 3);
    }

    #[test]
    fn the_nearest_layout_is_like_in_hosts_and_ranks_of_each() {
        let tuned = |hosts, each| Tuned { ranks: hosts * each, hosts, path: Path::Tcp, rules: Vec::new() };
        let layouts = [2, 4, 8, 16].into_iter().flat_map(|hosts| [1, 2, 8].map(|each| tuned(hosts, each)));
        let profile = Profile { layouts: layouts.collect(), chunks: None };
        for (ranks, hosts, near) in
            [(8, 4, (8, 4)), (64, 64, (16, 16)), (4096, 512, (128, 16)), (8, 3, (8, 4)), (5, 2, (4, 2))]
        {
            let found = profile.nearest(ranks, hosts).unwrap();
            assert_eq!((found.ranks, found.hosts), near, "{ranks} ranks on {hosts} hosts");
        }
        assert!(Profile::default().nearest(2, 2).is_none());
    }

    #[test]
    fn flaws_have_a_place() {
        for (from, to, expected) in [
            ("doubling up to 4K", "doubling up to 4X", "7:14: expected a size"),
            (
                "doubling up to 4K",
                "dubling up to 4K",
                "7:14: no algorithm of all_reduce is called \"dubling\"",
            ),
            ("up to 262144", "up to 2048", "7:14: sizes ascend"),
            ("doubling up", "doubling in chunks of 3K up", "7:14: expected a power of two from 1K to 128K"),
            ("hosts = 4", "hosts = 9", "3:1: 8 ranks on 9 hosts"),
            ("path = \"tcp\"", "path = \"shm\"", "3:1: hosts are joined by"),
            ("path = \"tcp\"", "path = \"ib\"", "6:8: unknown variant `ib`"),
            ("broadcast", "broadcost", "8:1: unknown field `broadcost`"),
            ("ranks = 8", "ranks = -8", "4:9: "),
            (
                "[[layout]]\nranks = 4\nhosts = 1\npath = \"shm\"",
                "[[layout]]\nranks = 8\nhosts = 4\npath = \"tcp\"",
                "10:1: a second layout",
            ),
        ] {
            let flaw = Profile::parse(&FILE.replacen(from, to, 1)).unwrap_err();
            assert!(flaw.starts_with(expected), "{flaw}");
            assert!(!flaw.contains('\n'), "{flaw}");
        }
    }
}
