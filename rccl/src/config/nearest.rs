//! "Did you mean …?"

/// The candidate with the least edit distance to `word`, if it is near enough to be what was meant: at most a third
/// of the word's letters differ. Case does not count.
///
/// The distance is Levenshtein's: insertions, deletions and substitutions of single letters.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.len().div_ceil(3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word.to_ascii_lowercase(), &candidate.to_ascii_lowercase()), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, candidate)| candidate)
}

fn distance(a: &str, b: &str) -> usize {
    // One row of the matrix: row[j] is the distance between the letters of `a` read so far and the first j of `b`.
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for j in 0..b.len() {
            let substituted = diagonal + usize::from(letter != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("RCCL_TIMEOT", ["RCCL_TIMEOUT", "RCCL_ALGO"]), Some("RCCL_TIMEOUT"));
        assert_eq!(nearest("rng", ["ring", "tree"]), Some("ring"));
        assert_eq!(nearest("xyzzy", ["ring", "tree"]), None);
    }
}
