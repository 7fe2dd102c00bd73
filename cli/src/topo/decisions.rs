//! Which algorithms calls take, what decides so, and what each would take by simulation.

use crate::perf::{parse_size, show_size};
use rccl::tuner::{ChunkSize, Class, Decision, Hosts, Path, Profile, Tuner};
use rccl::{Communicator, Config};
use rccl_schedule::simulate::{Call, Cluster, simulate};
use rccl_schedule::{Algorithm, Collective, Layout};
use serde::Serialize;
use std::fmt::Write;

/// More ranks are not simulated here: it would take longer than one waits.
const MOST_SIMULATED: u32 = 512;

/// What is explained.
#[derive(clap::Args)]
pub struct ExplainOptions {
    /// Show which algorithm calls of this collective take, and why: of the job under a launcher, else of --hosts times --ranks
    #[arg(long, value_name = "COLLECTIVE", value_parser = crate::simulate::parse_collective, conflicts_with = "rings")]
    explain: Option<Collective>,
    /// Their sizes, as `rccl perf` counts them
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = parse_size, requires = "explain",
          default_value = "8,1K,64K,1M,64M")]
    bytes: Vec<u64>,
}

/// What was decided for calls of one collective.
#[derive(Serialize)]
pub struct Decisions {
    collective: &'static str,
    ranks: u32,
    hosts: u32,
    path: Path,
    /// The cluster that the times are simulated on.
    simulated_on: Option<&'static str>,
    calls: Vec<Decided>,
}

#[derive(Serialize)]
struct Decided {
    bytes: u64,
    algorithm: &'static str,
    /// The size of chunks in bytes, if another than usual.
    chunk: Option<u32>,
    by: String,
    /// Of each algorithm that can run the call, the fastest first.
    simulated: Vec<Simulated>,
}

#[derive(Serialize)]
struct Simulated {
    algorithm: &'static str,
    time_us: f64,
}

impl ExplainOptions {
    pub fn are_wanted(&self) -> bool {
        self.explain.is_some()
    }

    /// For a job that need not exist, of hosts with so many ranks on each, by the settings and what this host has. The error
    /// is one line.
    pub fn planned(&self, config: &Config, hosts: u32, each: u32) -> Result<Option<Decisions>, String> {
        let Some(collective) = self.explain else { return Ok(None) };
        let layout = Layout::of_hosts((0..hosts * each).map(|rank| rank / each));
        let profile = rccl::tuner::load(config, hosts * each).map_err(|error| error.to_string())?;
        let on = rccl::tuner::hosts_like_this(config, each);
        self.decide(config, collective, layout, on, &profile).map(Some)
    }

    /// For the job that has been joined.
    pub fn of_job(&self, config: &Config, job: &Communicator) -> Result<Option<Decisions>, String> {
        let Some(collective) = self.explain else { return Ok(None) };
        let (host, on) = job.layout();
        let layout = Layout::of_hosts(host.iter().copied());
        let profile = rccl::tuner::load(config, job.size()).map_err(|error| error.to_string())?;
        self.decide(config, collective, layout, on, &profile).map(Some)
    }

    fn decide(
        &self,
        config: &Config,
        collective: Collective,
        layout: Layout,
        on: Hosts,
        profile: &Profile,
    ) -> Result<Decisions, String> {
        let tuner = Tuner::new(config, &layout, on, profile).map_err(|error| error.to_string())?;
        let (ranks, hosts, path) = (layout.ranks(), layout.hosts(), tuner.path(on.network));
        // In one host only the local half of it counts.
        let class = Class::of(path).unwrap_or(Class::Tcp);
        let cluster = (ranks <= MOST_SIMULATED).then(|| class.model(ranks, hosts));
        let calls = self.bytes.iter().map(|&bytes| {
            let block = if collective.blocks(ranks) > 1 { bytes / u64::from(ranks) } else { bytes };
            let Decision { algorithm: chosen, chunk, by, .. } = tuner.decide(&collective, block);
            let tried = Algorithm::for_collective(&collective).iter().copied();
            let tried = tried.filter(|&tried| tuner.permits(tried, &collective, block));
            let mut simulated: Vec<Simulated> = cluster
                .iter()
                .flat_map(|cluster| tried.clone().map(move |algorithm| (cluster, algorithm)))
                .filter_map(|(cluster, algorithm)| {
                    let call = Call { algorithm, collective, ranks, bytes, element: 4 };
                    let chunk = chunk.filter(|_| algorithm == chosen).map_or(cluster.chunk, ChunkSize::bytes);
                    let cluster = Cluster { chunk, ..cluster.clone() };
                    let time_us = simulate(&call, &cluster).ok()?.time as f64 / 1e6;
                    Some(Simulated { algorithm: algorithm.word(), time_us })
                })
                .collect();
            simulated.sort_by(|one, other| one.time_us.total_cmp(&other.time_us));
            let chunk = chunk.map(ChunkSize::bytes);
            Decided { bytes, algorithm: chosen.word(), chunk, by: by.to_string(), simulated }
        });
        Ok(Decisions {
            collective: collective.word(),
            ranks,
            hosts,
            path,
            simulated_on: cluster.as_ref().map(|_| class.word()),
            calls: calls.collect(),
        })
    }
}

impl Decisions {
    /// For people.
    pub fn text(&self) -> String {
        let Decisions { collective, ranks, hosts, path, .. } = self;
        let mut text = String::new();
        let plural = |count: u32| if count == 1 { "" } else { "s" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{collective} of {ranks} rank{} on {hosts} host{}, joined by {path}",
            plural(*ranks),
            plural(*hosts)
        );
        for call in &self.calls {
            let chunks = call
                .chunk
                .map_or(String::new(), |chunk| format!(" in chunks of {}", show_size(chunk.into())));
            let _ = writeln!(text, "  {:>6}  {}{chunks}: {}", show_size(call.bytes), call.algorithm, call.by);
            let times = call.simulated.iter().map(|one| format!("{} {:.1}", one.algorithm, one.time_us));
            if let (Some(on), times) = (self.simulated_on, times.collect::<Vec<_>>().join(", "))
                && !times.is_empty()
            {
                let _ = writeln!(text, "          simulated on {on}, us: {times}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(collective: Collective, bytes: &[u64]) -> ExplainOptions {
        ExplainOptions { explain: Some(collective), bytes: bytes.to_vec() }
    }

    #[test]
    fn a_decision_says_what_decided_and_what_others_would_take() {
        let mut config = Config::default();
        config.set("RCCL_NET", "tcp").unwrap();
        let options = explain(Collective::AllReduce, &[8, 2 << 20]);
        // One rank on each, for which every machine has a processor.
        let decisions = options.planned(&config, 8, 1).unwrap().unwrap();
        assert_eq!((decisions.ranks, decisions.hosts, decisions.path), (8, 8, Path::Tcp));
        for call in &decisions.calls {
            assert!(call.by.starts_with("class tcp-25g, simulated with 8 ranks on 8 hosts"), "{}", call.by);
            // What the class was made from says the same now, but for what it does not change algorithms for.
            let best = call.simulated[0].time_us;
            let chosen = call.simulated.iter().find(|one| one.algorithm == call.algorithm).unwrap();
            assert!(chosen.time_us <= best * 1.16, "{}", decisions.text());
        }
        let text = decisions.text();
        assert!(text.starts_with("all_reduce of 8 ranks on 8 hosts, joined by tcp"), "{text}");
        assert!(text.contains("\n      2M  ") && text.contains("simulated on tcp-25g, us: "), "{text}");
    }

    #[test]
    fn settings_and_profiles_decide_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("profile.toml");
        let layout =
            "[[layout]]\nranks = 8\nhosts = 4\npath = \"tcp\"\nall_gather = \"bruck up to 1K, ring\"\n";
        std::fs::write(&file, layout).unwrap();
        let mut config = Config::default();
        config.set("RCCL_NET", "tcp").unwrap();
        config.set("RCCL_TUNE_FILE", file.to_str().unwrap()).unwrap();
        // 8 KiB are blocks of 1 KiB.
        let options = explain(Collective::AllGather, &[8 << 10, 9 << 10]);
        let by = |config: &Config| {
            let decisions = options.planned(config, 4, 2).unwrap().unwrap();
            decisions.calls.iter().map(|call| (call.algorithm, call.by.clone())).collect::<Vec<_>>()
        };
        let profile = "profile of this layout (RCCL_TUNE_FILE)".to_owned();
        assert_eq!(by(&config), [("bruck", profile.clone()), ("ring", profile)]);
        config.set("RCCL_ALGO", "all_gather:direct").unwrap();
        assert_eq!(
            by(&config)[0],
            ("direct", "RCCL_ALGO or RCCL_REPRODUCIBLE, which leave out bruck".into())
        );
        std::fs::write(&file, layout.replace("bruck", "brick")).unwrap();
        let refused = options.planned(&config, 4, 2).err().unwrap();
        assert!(
            refused.contains("profile.toml:5:14: no algorithm of all_gather is called \"brick\""),
            "{refused}"
        );
    }
}
