//! Sets of logical processors.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A set of logical processors.
///
/// Read and written as the kernel writes masks: words of 32 bits in hexadecimal, the highest first, "00000003,ffffffff".
/// Printed as people read them: "0-33".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet {
    /// Processors 0 to 31 first. The last word is not 0.
    words: Vec<u32>,
}

/// Text that is no mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuSetError;

impl fmt::Display for CpuSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mask is words of up to 8 hexadecimal digits with commas between, as 00000003,ffffffff")
    }
}

impl std::error::Error for CpuSetError {}

impl CpuSet {
    /// Its processors, in order.
    pub fn processors(&self) -> impl Iterator<Item = usize> + '_ {
        let word = |(index, word): (usize, u32)| {
            (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| 32 * index + bit)
        };
        self.words.iter().copied().enumerate().flat_map(word)
    }

    /// How many processors.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// A list as the kernel writes it in files that end in `list`, and as this prints: "0-15,32". An empty text is the empty
    /// set. `None` for what is no list, and for processors beyond 65,535, which no kernel has.
    pub fn from_list(list: &str) -> Option<CpuSet> {
        let number = |word: &str| word.parse::<u16>().ok().map(usize::from);
        let mut processors = Vec::new();
        for part in list.trim().split(',').filter(|_| !list.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            processors.extend(number(first)?..=number(last)?);
        }
        Some(processors.into_iter().collect())
    }

    /// Whether it has all processors of another.
    pub fn contains(&self, other: &CpuSet) -> bool {
        other.words.iter().enumerate().all(|(index, word)| word & !self.words.get(index).unwrap_or(&0) == 0)
    }

    /// The kernel's words: "00000003,ffffffff".
    pub fn mask(&self) -> String {
        if self.is_empty() {
            return "00000000".to_owned();
        }
        let words: Vec<String> = self.words.iter().rev().map(|word| format!("{word:08x}")).collect();
        words.join(",")
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(processors: I) -> CpuSet {
        let mut words = Vec::new();
        for processor in processors {
            let index = processor / 32;
            if words.len() <= index {
                words.resize(index + 1, 0);
            }
            words[index] |= 1 << (processor % 32);
        }
        CpuSet { words }
    }
}

impl FromStr for CpuSet {
    type Err = CpuSetError;

    /// Accepts words of fewer digits, and one word of any length.
    fn from_str(mask: &str) -> Result<CpuSet, CpuSetError> {
        let mask = mask.trim();
        let mask = mask.strip_prefix("0x").unwrap_or(mask);
        let mut words = Vec::new();
        for part in mask.rsplit(',') {
            if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(CpuSetError);
            }
            if part.len() > 8 && mask.contains(',') {
                return Err(CpuSetError);
            }
            for digits in part.as_bytes().rchunks(8) {
                let digits = str::from_utf8(digits).map_err(|_| CpuSetError)?;
                words.push(u32::from_str_radix(digits, 16).map_err(|_| CpuSetError)?);
            }
        }
        while words.last() == Some(&0) {
            words.pop();
        }
        Ok(CpuSet { words })
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for processor in self.processors() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == processor => *last = processor,
                _ => ranges.push((processor, processor)),
            }
        }
        let range = |&(first, last): &(usize, usize)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        f.pad(&ranges.iter().map(range).collect::<Vec<_>>().join(","))
    }
}

impl Serialize for CpuSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(mask: &str) -> CpuSet {
        mask.parse().unwrap()
    }

    #[test]
    fn masks_become_ranges() {
        assert_eq!(set("00000000,0000ffff,ff000000").to_string(), "24-47");
        assert_eq!(set("ff").to_string(), "0-7");
        assert_eq!(set("5,00000001").to_string(), "0,32,34");
        assert_eq!(set("1000000000000000f").to_string(), "0-3,64");
        assert_eq!((set("0,00000000").to_string(), set("0").is_empty()), (String::new(), true));
        assert_eq!(set("5555,55555555,55555555").len(), 40);
    }

    #[test]
    fn leading_words_of_zeros_say_nothing() {
        assert_eq!(set("00000000,00ffffff"), set("00ffffff"));
        assert_eq!(set("00000000,00ffffff").mask(), "00ffffff");
    }

    #[test]
    fn what_is_no_mask() {
        for text in ["", ",", "f,", "0-7", "g", "123456789,1"] {
            assert_eq!(text.parse::<CpuSet>(), Err(CpuSetError), "{text}");
        }
    }

    #[test]
    fn lists_are_read_too() {
        let list = |text: &str| CpuSet::from_list(text).map(|set| set.to_string());
        assert_eq!(list("0-3,8,10-11\n").as_deref(), Some("0-3,8,10-11"));
        assert_eq!(list("\n").as_deref(), Some(""));
        for wrong in ["0-", "a", "0,,1", "-1", "0-99999999", "0x3"] {
            assert_eq!(list(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_set_contains_its_parts() {
        assert!(set("f,00000001").contains(&set("1,00000000")) && set("1").contains(&set("0")));
        assert!(!set("1").contains(&set("1,00000000")));
    }

    proptest! {
        #[test]
        fn a_set_holds_what_was_put_in_and_comes_back_from_its_mask(
            numbers in proptest::collection::btree_set(0_usize..500, 0..60)
        ) {
            let cpus: CpuSet = numbers.iter().copied().collect();
            prop_assert_eq!(cpus.processors().collect::<BTreeSet<_>>(), numbers.clone());
            prop_assert_eq!(cpus.len(), numbers.len());
            prop_assert_eq!(CpuSet::from_list(&cpus.to_string()), Some(cpus.clone()));
            prop_assert_eq!(set(&cpus.mask()), cpus);
        }
    }
}
