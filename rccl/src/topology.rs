//! What this process's host consists of: found out, or what a topology file says of it.

use crate::config::Config;
use crate::error::{Error, Result};
use rccl_topology::system::System;
use rccl_topology::{Host, Network, xml};
use std::path::Path;

/// Reads the topology file that the settings name, if they do, and writes the host of rank 0 where they say so. Without
/// these settings it does nothing; finding out takes some milliseconds.
///
/// A file that cannot be written is told and no failure: it is for people.
///
/// # Errors
/// [`Error::InvalidSetting`] when the topology file cannot be read, with line and column.
pub(crate) fn read_and_dump(config: &Config, rank: u32) -> Result<()> {
    let named = config.topo_file.as_deref().map(load).transpose()?;
    let Some(path) = config.topo_dump_file.as_deref().filter(|_| rank == 0) else { return Ok(()) };
    let system = named.unwrap_or_else(this_host);
    match std::fs::write(path, xml::write_system(&system)) {
        Ok(()) => tracing::info!("this host's topology is in {}", path.display()),
        Err(error) => {
            tracing::warn!(
                "RCCL_TOPO_DUMP_FILE={}: the topology cannot be written there: {error}",
                path.display()
            );
        }
    }
    Ok(())
}

fn load(path: &Path) -> Result<System> {
    let parsed = xml::load_system(path).map_err(|error| Error::InvalidSetting {
        name: "RCCL_TOPO_FILE".into(),
        value: path.display().to_string(),
        expected: format!("a topology file: {error}"),
    })?;
    for note in &parsed.notes {
        tracing::info!("{}:{note}, and is left out", path.display());
    }
    Ok(parsed.value)
}

fn this_host() -> System {
    let root = Path::new("/");
    System::discover(root, &Host::discover(root, Network::of_this_host().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Communicator;

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
        read_and_dump(&config, 1).unwrap();
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
}
