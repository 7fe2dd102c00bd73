//! What the files that the settings name say of this process's host, and what is written into files of that kind.

mod graphs;

use crate::config::Config;
use crate::error::{Error, Result};
use rccl_schedule::Layout;
use rccl_topology::graph::Graphs;
use rccl_topology::system::System;
use rccl_topology::xml::{self, Parsed};
use rccl_topology::{Host, Network};
use std::path::Path;

/// What a rank knows before it joins.
#[derive(Default)]
pub(crate) struct Topology {
    /// What this host consists of, if that is asked for.
    system: Option<System>,
    /// What the graph file says, on rank 0.
    graphs: Option<Graphs>,
    /// In which order its ring passes the ranks of a host.
    ring: Vec<u32>,
}

impl Topology {
    /// Reads the files that the settings name, and writes the host of rank 0 where they say so. Without these settings it
    /// does nothing; finding out takes some milliseconds.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] when the topology file cannot be read, or, on rank 0, the graph file, with line and
    /// column.
    pub(crate) fn read(config: &Config, rank: u32) -> Result<Topology> {
        let system = config.topo_file.as_deref();
        let mut system =
            system.map(|path| load("RCCL_TOPO_FILE", "topology", path, xml::load_system)).transpose()?;
        if rank != 0 {
            return Ok(Topology::default());
        }
        let (graphs, ring) = config.graph_file.as_deref().map(graphs::read).transpose()?.unzip();
        if config.topo_dump_file.is_some() || config.graph_dump_file.is_some() && graphs.is_none() {
            system.get_or_insert_with(this_host);
        }
        if let (Some(path), Some(system)) = (config.topo_dump_file.as_deref(), &system) {
            write("RCCL_TOPO_DUMP_FILE", path, &xml::write_system(system));
        }
        Ok(Topology { system, graphs, ring: ring.unwrap_or_default() })
    }

    /// In which order the ranks of a host come in a job of `size` ranks, by their indices on it; empty: by rank, as where
    /// the ring is longer, which then fits no host and might not fit into a message.
    pub(crate) fn ring(&self, size: u32) -> Vec<u32> {
        if self.ring.len() <= size as usize { self.ring.clone() } else { Vec::new() }
    }

    /// The rank has joined: rank 0 tells if the graph file's ring fits no host, and writes the graphs where the settings
    /// say so.
    ///
    /// What cannot be found or written is told and no failure: it is for people.
    pub(crate) fn joined(&self, config: &Config, layout: &Layout) {
        if let (Some(path), Some(_)) = (&config.graph_file, &self.graphs) {
            graphs::tell(path, self.ring.len(), layout);
        }
        const DUMP: &str = "RCCL_GRAPH_DUMP_FILE";
        let Some(path) = config.graph_dump_file.as_deref() else { return };
        match (&self.graphs, &self.system) {
            (Some(graphs), _) => write(DUMP, path, &xml::write_graphs(graphs)),
            (None, Some(system)) => match graphs::find(system, layout) {
                Ok(graphs) => write(DUMP, path, &xml::write_graphs(&graphs)),
                Err(error) => {
                    tracing::warn!("{DUMP}={}: there are no graphs to write: {error}", path.display())
                }
            },
            (None, None) => {}
        }
    }
}

/// Reads what a setting names.
fn load<T>(
    name: &'static str,
    kind: &str,
    path: &Path,
    load: fn(&Path) -> std::result::Result<Parsed<T>, xml::Error>,
) -> Result<T> {
    let parsed = load(path).map_err(|error| invalid(name, kind, path, &error.to_string()))?;
    for note in &parsed.notes {
        tracing::info!("{}:{note}, and is left out", path.display());
    }
    Ok(parsed.value)
}

fn invalid(name: &str, kind: &str, path: &Path, flaw: &str) -> Error {
    Error::InvalidSetting {
        name: name.into(),
        value: path.display().to_string(),
        expected: format!("a {kind} file: {flaw}"),
    }
}

/// Writes where a setting says.
fn write(name: &str, path: &Path, text: &str) {
    match std::fs::write(path, text) {
        Ok(()) => tracing::info!("{name}={}: written", path.display()),
        Err(error) => tracing::warn!("{name}={}: it cannot be written: {error}", path.display()),
    }
}

fn this_host() -> System {
    let root = Path::new("/");
    System::discover(root, &Host::discover(root, Network::of_this_host().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Communicator;
    use rccl_topology::graph::Hop;

    /// Joins a job of one rank.
    fn join(config: Config) -> Result<()> {
        let id = crate::UniqueId::create(&config)?;
        Communicator::builder()?.config(config).connect(&id, 0, 1)?.finish()
    }

    const FILE: &str = "<system version=\"1\">\n  <cpu numaid=\"3\" arch=\"x86_64\">\n    <nic>\n      \
                        <net name=\"eth7\" dev=\"0\" speed=\"25000\"/>\n    </nic>\n  </cpu>\n</system>\n";

    #[test]
    fn rank_0_writes_what_was_found_or_what_a_file_says() {
        let folder = tempfile::tempdir().unwrap();
        let (given, written) = (folder.path().join("given.xml"), folder.path().join("written.xml"));
        let mut config = Config { topo_dump_file: Some(written.clone()), ..Config::default() };
        join(config.clone()).unwrap();
        let found = xml::load_system(&written).unwrap().value;
        // Interfaces may come and go meanwhile; NUMA nodes do not.
        let nodes =
            |system: &System| system.cpus.iter().map(|node| node.affinity.clone()).collect::<Vec<_>>();
        assert_eq!(nodes(&found), nodes(&this_host()));
        std::fs::write(&given, FILE).unwrap();
        config.topo_file = Some(given);
        join(config.clone()).unwrap();
        let replaced = xml::load_system(&written).unwrap().value;
        assert_eq!(replaced, xml::parse_system(FILE.as_bytes()).unwrap().value);
        assert_ne!(replaced, found);
        // Another rank writes nothing, and where nothing can be written the job goes on.
        std::fs::remove_file(&written).unwrap();
        Topology::read(&config, 1).unwrap();
        assert!(!written.exists());
        config.topo_dump_file = Some(folder.path().join("nowhere/written.xml"));
        join(config).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_read_keeps_from_joining() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.xml");
        let refused = |content: Option<&str>| {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let config = Config { topo_file: Some(path.clone()), ..Config::default() };
            let error = join(config).unwrap_err();
            assert_eq!(error.code(), "RCCL-1002");
            error.to_string()
        };
        let name = format!("RCCL_TOPO_FILE={0}: expected a topology file: {0}", path.display());
        assert!(refused(None).starts_with(&format!("{name}: cannot be read")), "{}", refused(None));
        let said = refused(Some(&FILE.replace("</nic>", "")));
        assert!(said.starts_with(&format!("{name}:3:5: <nic> is never closed")), "{said}");
    }
    #[test]
    fn rank_0_writes_the_graphs_of_the_file_or_those_that_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (host, given, written) = (path("host.xml"), path("given.xml"), path("written.xml"));
        std::fs::write(&host, FILE).unwrap();
        let mut config =
            Config { topo_file: Some(host), graph_dump_file: Some(written.clone()), ..Config::default() };
        join(config.clone()).unwrap();
        let found = xml::load_graphs(&written).unwrap().value;
        assert_eq!(found.graphs[0].channels[0].hops, [Hop::Cpu { numa: 3, rank: Some(0) }]);

        let graphs = "<graphs><graph pattern=\"4\"><channel><gpu dev=\"5\"/></channel></graph></graphs>";
        std::fs::write(&given, graphs).unwrap();
        config.graph_file = Some(given);
        join(config.clone()).unwrap();
        let replaced = xml::load_graphs(&written).unwrap().value;
        assert_eq!(replaced, xml::parse_graphs(graphs.as_bytes()).unwrap().value);
        // Another rank reads and writes nothing, and where nothing can be written the job goes on.
        config.graph_file = Some(path("nowhere"));
        std::fs::remove_file(&written).unwrap();
        Topology::read(&config, 1).unwrap().joined(&config, &Layout::one_host(2));
        assert!(!written.exists());
        assert_eq!(join(config.clone()).unwrap_err().code(), "RCCL-1002");
        (config.graph_file, config.graph_dump_file) = (None, Some(path("nowhere/written.xml")));
        join(config).unwrap();
    }
}
