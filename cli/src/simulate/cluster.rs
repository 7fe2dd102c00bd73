//! Cluster files in TOML and JSON. What no cluster can have is an error that names line and column.

use rccl::tuner::ClusterFile;
use rccl_schedule::simulate::Cluster;
use std::io::Read;
use std::path::Path;

/// Reads a file, `-` being standard input. The error is one line.
pub fn read(path: &Path) -> Result<Cluster, String> {
    let shown = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().lock().read_to_string(&mut text).map(|_| ()),
        false => std::fs::read_to_string(path).map(|all| text = all),
    };
    read.map_err(|error| format!("cannot read cluster file {shown}: {error}"))?;
    let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    parse(&text, json).map_err(|flaw| format!("{shown}:{flaw}"))
}

/// Reads a file's text. The error is `LINE:COLUMN: what is wrong`.
pub fn parse(text: &str, json: bool) -> Result<Cluster, String> {
    let file: Result<ClusterFile, _> = if json { from_json(text) } else { from_toml(text) };
    file.map(ClusterFile::cluster)
}

fn from_json(text: &str) -> Result<ClusterFile, String> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = error.to_string();
        let place = format!(" at line {line} column {column}");
        format!("{line}:{column}: {}", message.strip_suffix(&place).unwrap_or(&message))
    })
}

fn from_toml(text: &str) -> Result<ClusterFile, String> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        format!("{}: {}", rccl::tuner::place(text, at), error.message().replace('\n', "; "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use rccl_schedule::simulate::{Rate, Slow};

    const SAMPLE: &str = include_str!("../../../docs/clusters/clos-2to1.toml");

    #[test]
    fn an_empty_file_is_the_usual_cluster() {
        assert_eq!(parse("", false), Ok(Cluster::default()));
        assert_eq!(parse("{}", true), Ok(Cluster::default()));
    }

    #[test]
    fn both_languages_say_the_same() {
        let toml = "hosts.ranks = 4\nnetwork = { rail_gbit_per_s = 200, rail_optimised = true, eager = \"32K\" }\nengine.chunk = 4096\n\
                    [[slow]]\nwhat = \"host 1\"\nfactor = 2.5";
        let json = r#"{"hosts": {"ranks": 4}, "network": {"rail_gbit_per_s": 200.0, "rail_optimised": true, "eager": 32768},
                       "engine": {"chunk": "4K"}, "slow": [{"what": "host 1", "factor": 2.5}]}"#;
        let cluster = parse(toml, false).unwrap();
        assert_eq!(parse(json, true).as_ref(), Ok(&cluster));
        assert_eq!((cluster.ranks_per_host, cluster.network.eager, cluster.chunk), (4, 32 << 10, 4096));
        assert_eq!((cluster.rail.rate, cluster.rail_optimised), (Rate::gigabytes(25.0), true));
        assert_eq!(cluster.slow, [Slow { what: "host 1".into(), factor: 2.5 }]);
    }

    #[test]
    fn flaws_have_a_place_and_name_what_is_known() {
        for (text, json, place, words) in [
            ("[hosts]\nrank = 8", false, "2:1: ", "unknown field `rank`, expected one of `ranks`"),
            ("[network]\n\nspines = 0", false, "3:10: ", "nonzero"),
            ("[network]\nrail_gbit_per_s = -1", false, "2:19: ", "-1 Gbit/s is no bandwidth"),
            ("hosts = {\n", false, "", ""),
            ("[network]\nrail_optimised = 1", false, "2:18: ", "expected a boolean"),
            ("[engine]\nchunk = \"9X\"", false, "2:9: ", "expected a size"),
            ("[engine]\nchunk = 0", false, "2:9: ", "no chunk"),
            ("{\"hosts\": {\n \"rank\": 8}}", true, "2:7: ", "unknown field `rank`, expected one of `ranks`"),
            ("{\"engine\": {\"window\": -4}}", true, "1:", "-4"),
        ] {
            let flaw = parse(text, json).unwrap_err();
            assert!(flaw.starts_with(place) && flaw.contains(words), "{text}: {flaw}");
            assert!(!flaw.contains('\n'), "{flaw}");
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        let json = r#"{"hosts": {"ranks": 4}, "slow": [{"what": "host 1", "factor": 2.5}]}"#;
        let mut random = StdRng::seed_from_u64(1);
        for (sample, is_json) in [(SAMPLE, false), (json, true)] {
            assert!(parse(sample, is_json).is_ok());
            for _ in 0..2000 {
                let mut bytes = sample.as_bytes().to_vec();
                for _ in 0..random.random_range(1..6) {
                    let at = random.random_range(0..bytes.len());
                    match random.random_range(0..3) {
                        0 => bytes[at] = random.random(),
                        1 => bytes.truncate(at.max(1)),
                        _ => bytes.insert(at, b"[]{}\"'=.,-0e\n"[random.random_range(0..13)]),
                    }
                }
                let _ = parse(&String::from_utf8_lossy(&bytes), is_json);
            }
        }
    }
}
