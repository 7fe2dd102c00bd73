//! Damaged files: the parsers answer, with an error or with a value that can be written, joined and read again.

mod fixture;

use proptest::prelude::*;
use rccl_topology::graph::Hop;
use rccl_topology::paths::Network;
use rccl_topology::search::{self, Reach};
use rccl_topology::xml;

/// A change of a text: bytes from `start` on are replaced.
#[derive(Clone, Debug)]
struct Damage {
    start: prop::sample::Index,
    removed: usize,
    added: Vec<u8>,
}

/// Pieces that mean something to XML or to NCCL, beside random bytes.
fn damage() -> impl Strategy<Value = Damage> {
    let pieces = prop::sample::select(vec![
        "<",
        ">",
        "/>",
        "\"",
        "'",
        "&",
        "&amp;",
        "&#0;",
        "]]>",
        "<!--",
        "-->",
        "<pci>",
        "</pci>",
        "<nic/>",
        "-1",
        "99999999999999999999",
        "0x",
        "1e999",
        "\u{feff}",
        "<?",
        "<!DOCTYPE a>",
        "ä",
        "=",
        "ffffffff:ff:ff.f",
    ])
    .prop_map(|piece| piece.as_bytes().to_vec());
    let added = prop_oneof![pieces, prop::collection::vec(any::<u8>(), 0..4)];
    (any::<prop::sample::Index>(), 0_usize..40, added).prop_map(|(start, removed, added)| Damage {
        start,
        removed,
        added,
    })
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let start = damage.start.index(bytes.len() + 1);
        let end = (start + damage.removed).min(bytes.len());
        bytes.splice(start..end, damage.added.iter().copied());
    }
    bytes
}

/// What holds for any bytes.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    match xml::parse_system(bytes) {
        Ok(parsed) => {
            let again = xml::parse_system(xml::write_system(&parsed.value).as_bytes());
            prop_assert_eq!(&again.map_err(|error| error.to_string()).unwrap().value, &parsed.value);
            serde_json::to_string(&parsed.value).unwrap();
            let network = Network::new(&parsed.value);
            for (id, _) in network.nodes().take(3) {
                prop_assert!(network.paths_to(id).iter().all(|path| path.bandwidth.is_finite()));
            }
        }
        Err(error) => {
            prop_assert!(error.position.is_some() && !error.to_string().contains('\n'), "{}", error)
        }
    }
    match xml::parse_graphs(bytes) {
        Ok(parsed) => {
            let again = xml::parse_graphs(xml::write_graphs(&parsed.value).as_bytes());
            prop_assert_eq!(&again.map_err(|error| error.to_string()).unwrap().value, &parsed.value);
        }
        Err(error) => prop_assert!(error.position.is_some(), "{}", error),
    }
    Ok(())
}

/// The parser quotes what it found.
#[test]
fn a_line_end_is_no_line_end_in_an_error() {
    let error = xml::parse_system(b"<system version=\"1\"/\n>").unwrap_err().to_string();
    assert!(error.contains("expected '>' not '\\n'"), "{error}");
    check(b"<system version=\"1\"/\n>").unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_files_are_read_or_refused(
        file in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let names = fixture::names();
        check(&damaged(fixture::bytes(&names[file.index(names.len())]), &damages))?;
    }

    #[test]
    fn a_file_that_breaks_off_is_refused(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let names: Vec<String> = fixture::names().into_iter().filter(|name| !name.contains("malformed")).collect();
        let mut bytes = fixture::bytes(&names[file.index(names.len())]);
        // Whole without the line's end after the last `>`.
        bytes.truncate(at.index(bytes.trim_ascii_end().len()));
        prop_assert!(xml::parse_system(&bytes).is_err() && xml::parse_graphs(&bytes).is_err());
        check(&bytes)?;
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_damaged_files_say_is_searched_or_refused(
        file in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        let names = fixture::names();
        let bytes = damaged(fixture::bytes(&names[file.index(names.len())]), &damages);
        let Ok(parsed) = xml::parse_system(&bytes) else { return Ok(()) };
        for host in parsed.value.each_host() {
            let seats = search::seats(&host);
            for reach in [Reach::Host, Reach::Job] {
                let Ok(found) = search::graphs(&host, &seats, reach) else { continue };
                for channel in found.graphs.iter().flat_map(|graph| &graph.channels) {
                    let mut ranks: Vec<u32> = channel.hops.iter().filter_map(Hop::rank).collect();
                    ranks.sort_unstable();
                    prop_assert!(ranks.into_iter().eq(seats.iter().map(|seat| seat.rank)));
                }
            }
        }
    }
}
