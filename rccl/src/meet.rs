//! From what a launcher says to the place where the control plane joins.

use crate::bootstrap::{Meeting, Secret, UniqueId};
use crate::config::Config;
use crate::error::Result;
use crate::launch::{self, Exchange, Key};
use sha2::{Digest, Sha256};
use std::time::Instant;

/// A rank that knows where to go.
pub(crate) struct Invitation {
    pub meeting: Meeting,
    pub rank: u32,
    pub size: u32,
    /// What carried the id; it must live until the job has been joined.
    pub exchange: Option<Box<dyn Exchange>>,
}

/// Asks the launcher who this process is, and exchanges the unique id where the launcher carries one. Blocks at most
/// [`Config::init_timeout`].
///
/// # Errors
/// As [`launch::detect`], [`Exchange`] and [`UniqueId::create`].
pub(crate) fn ask_launcher(config: &Config) -> Result<Invitation> {
    let placement = launch::detect(config)?;
    let (rank, size) = (placement.rank, placement.size);
    let deadline = Instant::now() + config.init_timeout;
    let (meeting, exchange) = match placement.meeting {
        launch::Meeting::Alone => (Meeting::Id(UniqueId::create(config)?), None),
        launch::Meeting::Address { host, port, key } => {
            (Meeting::Address { host, port, secret: secret(config, &key) }, None)
        }
        launch::Meeting::Exchange(mut exchange) => {
            let id = if rank == 0 {
                let id = UniqueId::create(config)?;
                exchange.publish(&id.to_bytes(), deadline)?;
                id
            } else {
                UniqueId::from_bytes(exchange.fetch(deadline)?)?
            };
            (Meeting::Id(id), Some(exchange))
        }
    };
    Ok(Invitation { meeting, rank, size, exchange })
}

/// The job's number follows from its name, so ranks of the same job with another key are told that it is the key.
fn secret(config: &Config, key: &Key) -> Secret {
    let name = config.job_id.as_deref().unwrap_or_default();
    let digest = Sha256::new().chain_update(b"rccl job number").chain_update(name).finalize();
    let mut job = [0; 8];
    job.copy_from_slice(&digest[..8]);
    Secret { job: u64::from_le_bytes(job), key: key.bytes }
}
