//! Which devices and ports may be used, in NCCL's syntax.

use std::fmt;
use std::str::FromStr;

/// A choice of devices and ports, as users of NCCL write it.
///
/// ```text
/// list = ["^"] ["="] word *("," word)        word = device [":" port]
/// ```
///
/// `mlx5` are all devices whose names begin so, `=mlx5_1` is that one and not mlx5_10, `^` leaves out what follows, and
/// `:2` means only the second port. An empty list allows everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceList {
    exclude: bool,
    exact: bool,
    words: Vec<Word>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    device: String,
    port: Option<u8>,
}

impl DeviceList {
    /// Whether this port, counted from 1, may be used.
    pub fn allows(&self, device: &str, port: u8) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| self.names(word, device, port)) != self.exclude
    }

    /// Whether everything may be used.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The words that name none of these ports: mistakes of typing, or devices that are gone.
    pub fn unmatched<'a>(&self, ports: impl IntoIterator<Item = (&'a str, u8)> + Clone) -> Vec<String> {
        let names_none =
            |word: &&Word| !ports.clone().into_iter().any(|(device, port)| self.names(word, device, port));
        self.words.iter().filter(names_none).map(Word::to_string).collect()
    }

    fn names(&self, word: &Word, device: &str, port: u8) -> bool {
        let name = if self.exact { device == word.device } else { device.starts_with(&word.device) };
        name && word.port.is_none_or(|wanted| wanted == port)
    }
}

impl FromStr for DeviceList {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceList, String> {
        let expected =
            || "a list of devices such as mlx5_0,mlx5_1:1, or =mlx5_1 (exact), ^rxe (all but)".to_owned();
        let (exclude, rest) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
        let (exact, list) = rest.strip_prefix('=').map_or((false, rest), |rest| (true, rest));
        let word = |text: &str| {
            let text = text.trim();
            let (device, port) = match text.split_once(':') {
                Some((device, port)) => {
                    let port: u8 = port.parse().map_err(|_| expected())?;
                    (device, Some(port).filter(|&port| port > 0).ok_or_else(expected)?.into())
                }
                None => (text, None),
            };
            // A device's name has no such letters: a second `^` or `=` is a misunderstanding of the syntax.
            if device.is_empty() || device.contains(['^', '=', '/', ' ']) {
                return Err(expected());
            }
            Ok(Word { device: device.to_owned(), port })
        };
        Ok(DeviceList { exclude, exact, words: list.split(',').map(word).collect::<Result<_, _>>()? })
    }
}

/// As it is written; nothing for an empty list.
impl fmt::Display for DeviceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.words.iter().map(Word::to_string).collect();
        let (not, exact) = (if self.exclude { "^" } else { "" }, if self.exact { "=" } else { "" });
        write!(f, "{not}{exact}{}", words.join(","))
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.device),
            None => f.write_str(&self.device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_mean_what_nccl_users_mean() {
        for (text, device, port, allowed) in [
            ("mlx5", "mlx5_0", 1, true),
            ("mlx5_1", "mlx5_10", 1, true),
            ("=mlx5_1", "mlx5_10", 1, false),
            ("=mlx5_1", "mlx5_1", 2, true),
            ("=mlx5_1:1", "mlx5_1", 2, false),
            ("=mlx5_0:1,mlx5_1:2", "mlx5_1", 2, true),
            ("mlx5_0:1", "rxe0", 1, false),
            ("^rxe", "rxe0", 1, false),
            ("^rxe", "mlx5_0", 1, true),
            ("^=mlx5_3,mlx5_4", "mlx5_4", 1, false),
            ("^=mlx5_3", "mlx5_31", 1, true),
            ("^mlx5_0:2", "mlx5_0", 1, true),
            ("^mlx5_0:2", "mlx5_0", 2, false),
        ] {
            let list: DeviceList = text.parse().unwrap();
            assert_eq!(list.allows(device, port), allowed, "{text} {device}:{port}");
            assert_eq!(list.to_string(), text);
        }
        assert!(DeviceList::default().allows("anything", 1));
        for text in ["", "^", "=", "a,,b", "a:0", "a:x", "a:256", "a,^b", "=a,=b", "a b"] {
            assert!(text.parse::<DeviceList>().is_err(), "{text}");
        }
    }

    #[test]
    fn words_that_name_nothing_are_found() {
        let list: DeviceList = "mlx5_0:1,mlx5_7,rxe0:2".parse().unwrap();
        assert_eq!(list.unmatched([("mlx5_0", 1), ("rxe0", 1)]), ["mlx5_7", "rxe0:2"]);
    }
}
