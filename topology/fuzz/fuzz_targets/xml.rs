//! Any bytes as a topology file and as a graph file: each is read or refused, and what was read comes back the same when
//! it is written and read again, has finite paths, and can be drawn.
//!
//! `make fuzz` runs it; or, from the folder `topology`, `cargo +nightly fuzz run xml fuzz/corpus tests/nccl`, after `cargo
//! install cargo-fuzz`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rccl_topology::{draw, paths::Network, xml};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(parsed) = xml::parse_system(bytes) {
        let system = parsed.value;
        assert_eq!(xml::parse_system(xml::write_system(&system).as_bytes()).unwrap().value, system);
        let network = Network::new(&system);
        for (id, _) in network.nodes().take(3) {
            assert!(network.paths_to(id).iter().all(|path| path.bandwidth.is_finite()));
        }
        draw::svg(Some(&system), None);
    }
    if let Ok(parsed) = xml::parse_graphs(bytes) {
        let graphs = parsed.value;
        assert_eq!(xml::parse_graphs(xml::write_graphs(&graphs).as_bytes()).unwrap().value, graphs);
        draw::svg(None, Some(&graphs));
    }
});
