//! Values that are words out of a short list, or lists of names.

use super::{Value, nearest};
use std::fmt;
use std::path::PathBuf;

/// How much is logged. Each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing at all.
    None,
    /// What went wrong or got slower, and why.
    Warn,
    /// And one line with the version.
    Version,
    /// What was chosen, and why.
    Info,
    /// What was ignored.
    Debug,
    /// Everything.
    Trace,
}

const LEVELS: [(&str, Level); 6] = [
    ("NONE", Level::None),
    ("WARN", Level::Warn),
    ("VERSION", Level::Version),
    ("INFO", Level::Info),
    ("DEBUG", Level::Debug),
    ("TRACE", Level::Trace),
];

impl Value for Level {
    fn parse(text: &str) -> Result<Self, String> {
        let level = LEVELS.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        level.map(|(_, level)| level).ok_or_else(|| one_of(text, LEVELS.map(|(word, _)| word)))
    }
    fn show(&self) -> String {
        let word = LEVELS.into_iter().find(|(_, level)| level == self).map_or("", |(word, _)| word);
        word.to_owned()
    }
}

/// Which results of reductions are the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reproducible {
    /// Those of one call on all its ranks.
    Ranks,
    /// Those of the same operands, whatever the message size, algorithm, transport, layout of hosts and placement of
    /// ranks: every element is reduced in one pass, in ascending order of rank, halves and fp8 in f32 with one rounding
    /// at the end.
    Fixed,
}

const REPRODUCIBLE: [(&str, Reproducible); 2] =
    [("ranks", Reproducible::Ranks), ("fixed", Reproducible::Fixed)];

impl Value for Reproducible {
    fn parse(text: &str) -> Result<Self, String> {
        let value = REPRODUCIBLE.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        value.map(|(_, value)| value).ok_or_else(|| one_of(text, REPRODUCIBLE.map(|(word, _)| word)))
    }
    fn show(&self) -> String {
        let word = REPRODUCIBLE.into_iter().find(|(_, value)| value == self).map_or("", |(word, _)| word);
        word.to_owned()
    }
}

/// A set of the words in `WORDS`, written as a list, or with `^` as the list of those that are not in it.
#[derive(Clone, PartialEq, Eq)]
struct WordSet {
    exclude: bool,
    words: Vec<&'static str>,
}

impl WordSet {
    fn contains(&self, word: &str) -> bool {
        self.words.iter().any(|known| known.eq_ignore_ascii_case(word)) != self.exclude
    }
    fn parse(text: &str, known: &[&'static str]) -> Result<WordSet, String> {
        let (exclude, list) = match text.strip_prefix('^') {
            Some(list) => (true, list),
            None => (false, text),
        };
        let find = |word: &str| {
            let found = known.iter().copied().find(|known| known.eq_ignore_ascii_case(word.trim()));
            found.ok_or_else(|| one_of(word, known.iter().copied()))
        };
        Ok(WordSet { exclude, words: list.split(',').map(find).collect::<Result<_, _>>()? })
    }
    fn show(&self) -> String {
        format!("{}{}", if self.exclude { "^" } else { "" }, self.words.join(","))
    }
}

impl fmt::Debug for WordSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

/// The words that name transports.
pub const TRANSPORT_WORDS: [&str; 3] = ["shm", "verbs", "tcp"];

/// The transports that links may use. By default all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transports(WordSet);

impl Transports {
    /// Whether the transport with this word may be used.
    pub fn allows(&self, word: &str) -> bool {
        self.0.contains(word)
    }
}

impl Default for Transports {
    fn default() -> Transports {
        Transports(WordSet { exclude: false, words: TRANSPORT_WORDS.to_vec() })
    }
}

impl Value for Transports {
    fn parse(text: &str) -> Result<Self, String> {
        let set = WordSet::parse(text, &TRANSPORT_WORDS)?;
        if TRANSPORT_WORDS.iter().any(|word| set.contains(word)) {
            Ok(Transports(set))
        } else {
            Err(format!("at least one transport out of {} to be left", TRANSPORT_WORDS.join(", ")))
        }
    }
    fn show(&self) -> String {
        self.0.show()
    }
}

/// NCCL's words; `Subsystems::of_target` says which of our modules each stands for.
const SUBSYSTEMS: [&str; 17] = [
    "INIT",
    "COLL",
    "P2P",
    "SHM",
    "NET",
    "GRAPH",
    "TUNING",
    "ENV",
    "ALLOC",
    "CALL",
    "PROXY",
    "NVLS",
    "BOOTSTRAP",
    "REG",
    "PROFILE",
    "RAS",
    "ALL",
];

/// The parts of the library that log at `INFO` and below. By default all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subsystems(WordSet);

impl Subsystems {
    /// Whether the module that logs (`rccl::launch::pmix`) belongs to a part that was asked for.
    pub fn allows(&self, target: &str) -> bool {
        self.0.contains(Subsystems::of_target(target)) || (!self.0.exclude && self.0.contains("ALL"))
    }
    fn of_target(target: &str) -> &'static str {
        let part = |word: &str| match word {
            "launch" => Some("INIT"),
            "bootstrap" => Some("BOOTSTRAP"),
            "control" => Some("RAS"),
            "config" => Some("ENV"),
            "shm" | "loopback" => Some("SHM"),
            "tcp" | "verbs" => Some("NET"),
            "tuner" | "planner" | "plan" => Some("TUNING"),
            "buffer" | "memory" | "register" => Some("REG"),
            "engine" | "kernels" => Some("COLL"),
            _ => None,
        };
        target.split("::").find_map(part).unwrap_or("INIT")
    }
}

impl Default for Subsystems {
    fn default() -> Subsystems {
        Subsystems(WordSet { exclude: false, words: vec!["ALL"] })
    }
}

impl Value for Subsystems {
    fn parse(text: &str) -> Result<Self, String> {
        WordSet::parse(text, &SUBSYSTEMS).map(Subsystems)
    }
    fn show(&self) -> String {
        self.0.show()
    }
}

/// A choice of network interfaces by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interfaces {
    exclude: bool,
    exact: bool,
    names: Vec<String>,
}

impl Interfaces {
    /// Whether the interface with this name may be used.
    pub fn allows(&self, name: &str) -> bool {
        let named =
            |given: &String| if self.exact { name == given } else { name.starts_with(given.as_str()) };
        self.names.iter().any(named) != self.exclude
    }
}

impl Value for Interfaces {
    fn parse(text: &str) -> Result<Self, String> {
        let (exclude, rest) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
        let (exact, list) = rest.strip_prefix('=').map_or((false, rest), |rest| (true, rest));
        let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
        // An interface's name has no such letters, so a second `^` or `=` is a misunderstanding of the syntax.
        if names.iter().any(|name| name.is_empty() || name.contains(['^', '=', '/'])) {
            return Err(
                "a list of interface prefixes such as eth,ib, or =eth0 (exact), ^docker,lo (all but)".into(),
            );
        }
        Ok(Interfaces { exclude, exact, names })
    }
    fn show(&self) -> String {
        let (not, exact) = (if self.exclude { "^" } else { "" }, if self.exact { "=" } else { "" });
        format!("{not}{exact}{}", self.names.join(","))
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Value for Family {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "AF_INET" => Ok(Family::V4),
            "AF_INET6" => Ok(Family::V6),
            _ => Err("AF_INET or AF_INET6".into()),
        }
    }
    fn show(&self) -> String {
        match self {
            Family::V4 => "AF_INET".into(),
            Family::V6 => "AF_INET6".into(),
        }
    }
}

/// Ports that may be listened on, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Value for PortRange {
    fn parse(text: &str) -> Result<Self, String> {
        let range = text.split_once(['-', ':']).unwrap_or((text, text));
        match (range.0.trim().parse(), range.1.trim().parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(PortRange { first, last }),
            _ => Err("ports such as 20000-20100".into()),
        }
    }
    fn show(&self) -> String {
        format!("{}-{}", self.first, self.last)
    }
}

/// Where the ranks of a job meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeetingPlace {
    /// An address that rank 0 listens on. IPv6 literals have lost their brackets.
    Address {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A file on a file system that all ranks share.
    File(PathBuf),
}

impl Value for MeetingPlace {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = || "host:port, [IPv6 address]:port or file:///absolute/path".to_owned();
        if let Some(path) = text.strip_prefix("file://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(MeetingPlace::File(path)) } else { Err(expected()) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // `::1:4000` could end in a port or not.
        if host.is_empty() || (bare.is_none() && host.contains(':')) {
            return Err(expected());
        }
        match port.parse() {
            Ok(port) if port != 0 => {
                Ok(MeetingPlace::Address { host: bare.unwrap_or(host).to_owned(), port })
            }
            _ => Err(expected()),
        }
    }
    fn show(&self) -> String {
        match self {
            MeetingPlace::Address { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            MeetingPlace::Address { host, port } => format!("{host}:{port}"),
            MeetingPlace::File(path) => format!("file://{}", path.display()),
        }
    }
}

/// `node1:4000`, `[::1]:4000`, `file:///shared/meet`.
impl fmt::Display for MeetingPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

fn one_of<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let list: Vec<&str> = known.clone().into_iter().collect();
    let meant = nearest(word, known).map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
    format!("one of {}{meant}", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_follow_nccl_syntax() {
        let cases = [
            ("eth", "eth0", true),
            ("eth,ib", "ib1", true),
            ("eth", "docker0", false),
            ("^docker,lo", "docker0", false),
            ("^docker,lo", "eth0", true),
            ("=eth0", "eth0", true),
            ("=eth0", "eth01", false),
            ("^=eth0", "eth0", false),
            ("^=eth0", "eth01", true),
        ];
        for (text, name, allowed) in cases {
            let interfaces = Interfaces::parse(text).unwrap();
            assert_eq!(interfaces.allows(name), allowed, "{text} {name}");
            assert_eq!(interfaces.show(), text);
        }
        assert!(Interfaces::parse("eth0,^lo").is_err());
    }

    #[test]
    fn word_lists_reject_unknown_words_and_name_the_known() {
        assert!(Transports::parse("rdma").unwrap_err().contains("shm, verbs, tcp"));
        assert!(Transports::parse("^shm,verbs,tcp").is_err(), "nothing is left");
        let tcp = Transports::parse("^shm").unwrap();
        assert!(tcp.allows("tcp") && !tcp.allows("shm"));
        assert!(Level::parse("WARM").unwrap_err().contains("did you mean `WARN`"));
        assert_eq!(Level::parse("info"), Ok(Level::Info));

        let some = Subsystems::parse("INIT,NET").unwrap();
        assert!(some.allows("rccl_transport::tcp") && !some.allows("rccl::bootstrap"));
        let others = Subsystems::parse("^NET").unwrap();
        assert!(!others.allows("rccl_transport::tcp") && others.allows("rccl::bootstrap"));
        assert!(Subsystems::default().allows("rccl"));
    }

    #[test]
    fn meeting_places_are_addresses_or_files() {
        for text in ["node1:4000", "10.0.0.1:1", "[fe80::1]:4000", "file:///shared/meet"] {
            assert_eq!(MeetingPlace::parse(text).unwrap().to_string(), text);
        }
        for text in
            ["node1", "node1:", "node1:0", "node1:70000", "::1:4000", ":4000", "file://meet", "[::1:4"]
        {
            assert!(MeetingPlace::parse(text).is_err(), "{text}");
        }
        assert_eq!(PortRange::parse("20000-20010"), Ok(PortRange { first: 20000, last: 20010 }));
        for text in ["", "0-5", "9-5", "x", "1-99999"] {
            assert!(PortRange::parse(text).is_err(), "{text}");
        }
    }
}
