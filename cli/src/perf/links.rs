//! Which links a run used, for the lines after the table.

use std::fmt::Write;

/// Pairs that are named for one kind of link and reason; how many more there are is counted.
const NAMED: usize = 8;

/// What a rank knows: its links to higher ranks, one to a line. The lower end is the one that tried, and knows why.
pub fn known(rank: u32, links: &[(u32, String, String)]) -> String {
    let mut higher: Vec<_> = links.iter().filter(|(peer, ..)| *peer > rank).collect();
    higher.sort_unstable();
    let mut text = String::new();
    for (peer, kind, reason) in higher {
        let _ = writeln!(text, "{peer}\t{kind}\t{reason}");
    }
    text
}

/// The lines of the report, from what all ranks know: each kind and reason once, with the pairs of ranks that it is of.
pub fn lines(known: &[String]) -> String {
    let mut groups: Vec<(&str, &str, Vec<String>)> = Vec::new();
    for (rank, text) in known.iter().enumerate() {
        for line in text.lines() {
            let mut words = line.splitn(3, '\t');
            let (Some(peer), Some(kind), Some(reason)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let pair = format!("{rank}-{peer}");
            match groups.iter_mut().find(|group| (group.0, group.1) == (kind, reason)) {
                Some((.., pairs)) => pairs.push(pair),
                None => groups.push((kind, reason, vec![pair])),
            }
        }
    }
    if groups.is_empty() {
        return String::new();
    }
    let mut text = String::from("# Links\n");
    for (kind, reason, pairs) in groups {
        let named = pairs[..pairs.len().min(NAMED)].join(" ");
        let more = pairs.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = writeln!(text, "#  {kind:<6} {named}{more}: {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_said_once() {
        let link = |peer, kind: &str, reason: &str| (peer, kind.to_owned(), reason.to_owned());
        let known = [
            known(0, &[link(2, "tcp", "different hosts: TCP"), link(1, "shm", "same host: shared memory")]),
            known(1, &[link(0, "shm", "same host: shared memory"), link(2, "tcp", "different hosts: TCP")]),
            known(2, &[link(0, "tcp", "different hosts: TCP")]),
        ];
        assert_eq!(
            lines(&known),
            "# Links\n#  shm    0-1: same host: shared memory\n#  tcp    0-2 1-2: different hosts: TCP\n"
        );
        assert_eq!(lines(&[String::new()]), "");
        let many: Vec<_> = (1..20).map(|peer| link(peer, "shm", "same host")).collect();
        assert!(lines(&[super::known(0, &many)]).contains(" 0-8 and 11 more: same host\n"));
    }
}
