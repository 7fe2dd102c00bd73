//! How a rank joins: from the meeting place to its session.

use super::JoinOptions;
use super::links::Listeners;
use super::session::Session;
use super::shared::{Shared, WORLD};
use super::station::{Start, Station};
use crate::bootstrap::connect::{self, Meeting, Wrong};
use crate::bootstrap::group::Group;
use crate::bootstrap::host::Identity;
use crate::bootstrap::layout;
use crate::bootstrap::message::{Details, FromRoot, Joining};
use crate::bootstrap::rendezvous;
use crate::error::Error;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;

/// Why a rank could not join.
pub(crate) enum Failed {
    Join(Wrong),
    Other(Error),
}

impl From<Wrong> for Failed {
    fn from(wrong: Wrong) -> Failed {
        Failed::Join(wrong)
    }
}

/// Joins, tells `result`, and then serves until goodbye.
pub(crate) async fn begin(
    meeting: Meeting,
    rank: u32,
    size: u32,
    options: JoinOptions,
    result: SyncSender<Result<Arc<Shared>, Failed>>,
) {
    match join(meeting, rank, size, options).await {
        Ok((world, session)) => {
            if result.send(Ok(world)).is_ok() {
                session.run().await;
            }
        }
        Err(failed) => {
            let _ = result.send(Err(failed));
        }
    }
}

async fn join(
    meeting: Meeting,
    rank: u32,
    size: u32,
    options: JoinOptions,
) -> Result<(Arc<Shared>, Session), Failed> {
    let deadline = Instant::now() + options.patience;
    let host = Identity::here(options.listening.host_id.as_deref());
    let mut twin = None;
    if let Meeting::Address { host: named, port, secret } = &meeting
        && rank == 0
    {
        if let Some(local) = connect::is_elsewhere(named) {
            // Not an error: containers publish ports under other hosts' addresses.
            tracing::warn!(
                "rank 0 waits at {meeting}, but no interface of this host has that address ({local}): start rank 0 on \
                 the host that has it, or name this one's"
            );
        }
        // The job before may hold the port for a moment. If it is held for longer, another rank 0 may be there: then
        // its root says so to both.
        const MOMENT: Duration = Duration::from_secs(1);
        let began = Instant::now();
        loop {
            match rendezvous::bind(Some(*port), &options.listening) {
                Ok((listener, _)) => {
                    tokio::spawn(rendezvous::serve(listener, secret.clone(), host.clone()));
                    break;
                }
                Err(error) if Instant::now() >= deadline => return Err(Failed::Other(error)),
                Err(_) if began.elapsed() > MOMENT => {
                    let soon = deadline.min(Instant::now() + MOMENT);
                    if let Ok(stream) = connect::reach(&meeting, rank, host.key, soon).await {
                        twin = Some(stream);
                        break;
                    }
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
    let stream = match twin {
        Some(stream) => stream,
        None => connect::reach(&meeting, rank, host.key, deadline).await?,
    };

    let pid = std::process::id();
    let secret = meeting.secret();
    let own = stream.local_addr().ok().map(|address| address.ip().to_canonical());
    let listeners = Listeners::open(&options, &secret, rank).map_err(Failed::Other)?;
    let details = Details {
        host,
        pid,
        processors: options.processors.clone(),
        path: listeners.path(),
        addresses: listeners.addresses(&options.listening, own),
        port: listeners.port(),
        rdma: options.links.verbs.as_ref().map(|rdma| rdma.adverts.clone()).map_err(Clone::clone),
    };
    let joining = Joining {
        rank,
        size,
        patience: deadline.saturating_duration_since(Instant::now()),
        agreement: options.agreement.clone(),
        silence: options.silence,
        ring: options.ring.clone(),
        profile: options.profile.clone(),
        details: details.clone(),
    };
    let joined = connect::join(stream, joining, deadline).await?;

    let FromRoot::Welcome { root, runs, processors, ring, tuning } = joined.welcome else {
        return Err(Failed::Join(("the root's answer makes no sense".into(), String::new())));
    };
    let hosts = layout::hosts(&runs, size)
        .ok_or_else(|| Failed::Join(("the root described another number of ranks".into(), String::new())))?;
    let (commands, commanded) = unbounded_channel();
    let station = Arc::new(Station::new(Start {
        secret,
        me: details.member(rank),
        processors: processors_of(&processors, hosts[rank as usize]),
        layout: layout::in_order(hosts, &ring),
        details,
        root,
        tuning,
        links: options.links.clone(),
        regions: options.regions.clone(),
        commands,
    }));
    let group = Arc::new(Group::whole(size));
    let world = Arc::new(Shared::new(WORLD, group, station.clone()).map_err(Failed::Other)?);
    // Nothing is known yet that could be in its way.
    let _ = station.enter(&world);
    let session = Session::new(station, joined.stream, commanded, listeners, &options);
    Ok((world, session))
}

/// How many processors the ranks of a host have, from what the root says of all hosts.
fn processors_of(by_host: &[u32], host: u32) -> u32 {
    by_host.get(host as usize).or(by_host.last()).copied().unwrap_or(u32::MAX)
}
