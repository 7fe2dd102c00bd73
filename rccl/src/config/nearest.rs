//! "Did you mean …?"

use strsim::osa_distance;

/// The candidate with the least edit distance to `word`, if it is near enough to be what was meant: at most a third
/// of the word's letters differ. Case does not count.
///
/// The distance counts insertions, deletions, substitutions and swaps of neighbouring letters.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.len().div_ceil(3);
    candidates
        .into_iter()
        .map(|candidate| {
            (osa_distance(&word.to_ascii_lowercase(), &candidate.to_ascii_lowercase()), candidate)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("RCCL_TIMEOT", ["RCCL_TIMEOUT", "RCCL_ALGO"]), Some("RCCL_TIMEOUT"));
        assert_eq!(nearest("rng", ["ring", "tree"]), Some("ring"));
        assert_eq!(nearest("tpc", ["shm", "tcp"]), Some("tcp"));
        assert_eq!(nearest("xyzzy", ["ring", "tree"]), None);
    }
}
