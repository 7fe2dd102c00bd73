//! Making links: which transport joins a pair of ranks, and why.
//!
//! The rank of a pair that is lower in the job connects, the higher accepts: each has one path socket and one TCP port
//! for all its communicators, and every link is one communicator's alone. Two ranks whose hosts claim to be the same try shared memory
//! first, over a path socket ([`local`]), then all that have RDMA ports in common try those ([`verbs`]), then TCP
//! ([`tcp`]). Whatever refuses the better one (another mount namespace, another user, a port that is down, a setting) is
//! kept as the reason, and logged once where it is unexpected.

mod local;
mod passing;
mod reception;
mod tcp;
mod verbs;

use super::JoinOptions;
use super::session::{Command, link_lost};
use super::shared::{Shared, WORLD};
use super::station::Station;
use crate::bootstrap::Listening;
use crate::bootstrap::handshake::{Caller, Purpose, Secret};
use crate::bootstrap::interface;
use crate::bootstrap::message::{Details, Report};
use crate::config::{Config, Net, Reproducible};
use crate::error::{Failure, Member, Result, with_remedy};
use crate::rdma::{self, NoRdma, Rdma};
pub(super) use local::fetch_regions;
pub(crate) use local::{forget, forget_rank, sweep};
use rccl_transport::memory::RegionTable;
use rccl_transport::{Kind, Link, TcpOptions, rc, shm};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
pub(super) use tcp::Halves;
use tokio::task::JoinSet;
use tokio::time::{error::Elapsed, timeout};

/// How long one way of making a link may take in all.
const PATIENCE: Duration = Duration::from_secs(60);
/// For how long a rank in a call may be unable to accept a connection. A stranger who takes all descriptors is turned
/// away within this time; the process's own limit is not.
const UNREACHABLE: Duration = Duration::from_secs(3);

/// A link that was made.
pub(crate) struct Made {
    /// The other end's rank in the communicator.
    pub peer: u32,
    pub link: Box<dyn Link>,
    pub kind: Kind,
    /// Why it is of this kind, and what it cannot do.
    pub reason: String,
}

/// How links are made. All but `copies` must be the same on all ranks.
#[derive(Clone, Debug)]
pub(crate) struct LinkSettings {
    /// Whether shared memory may be used; else the reason.
    pub shm: std::result::Result<(), String>,
    /// The RDMA ports of this process, or why it has none.
    pub verbs: std::result::Result<Arc<Rdma>, NoRdma>,
    /// Whether RDMA is allowed to all ranks, whether they have any or not.
    pub verbs_allowed: bool,
    /// A pair that is not on one host and has no RDMA is an error.
    pub verbs_only: bool,
    /// Whether TCP may be used.
    pub tcp: bool,
    /// Whether processes may copy out of each other's memory; else the reason.
    pub copies: std::result::Result<(), String>,
    /// Sockets of a TCP link: one for control, the others for bulk.
    pub sockets: u8,
    pub shm_options: shm::Options,
    pub tcp_options: TcpOptions,
}

impl LinkSettings {
    /// What the settings say; opens the RDMA ports.
    pub(crate) fn new(config: &Config, regions: &Arc<RegionTable>) -> LinkSettings {
        LinkSettings::with(config, rdma::open(config, regions))
    }

    fn with(config: &Config, verbs: std::result::Result<Arc<Rdma>, NoRdma>) -> LinkSettings {
        let shm = if config.shm_disable {
            Err("RCCL_SHM_DISABLE is set".into())
        } else if !config.transport.allows("shm") {
            Err("RCCL_TRANSPORT leaves shm out".into())
        } else {
            Ok(())
        };
        let defaults = shm::Options::default();
        let staging_bytes = config.buffsize.0.next_multiple_of(64).clamp(4096, (16 << 20) - 64);
        let slot = defaults.slot.min(staging_bytes / 4);
        LinkSettings {
            shm,
            verbs,
            verbs_allowed: config.transport.allows("verbs") && config.net != Net::Tcp,
            verbs_only: config.net == Net::Verbs,
            tcp: config.transport.allows("tcp"),
            copies: if config.copy_disable { Err("RCCL_COPY_DISABLE is set".into()) } else { Ok(()) },
            sockets: config.nsocks.clamp(1, 64) as u8 + 1,
            shm_options: shm::Options { staging_bytes, slot, eager: defaults.eager.min(slot), ..defaults },
            tcp_options: TcpOptions::default(),
        }
    }

    /// The settings that must agree, one to a line.
    pub(crate) fn agreement(&self, config: &Config) -> String {
        let shm = if self.shm.is_ok() { "used" } else { "not used" };
        let verbs = if self.verbs_allowed { "allowed" } else { "not used" };
        let tcp = if self.tcp { "used" } else { "not used" };
        format!(
            "shared memory {shm}\nRDMA {verbs}\nTCP {tcp}\nRCCL_NSOCKS={}\nRCCL_BUFFSIZE={}\nRCCL_ALGO={}\nreductions {}",
            config.nsocks,
            config.buffsize.0,
            config.algo,
            if config.reproducible == Reproducible::Fixed { "in fixed order" } else { "in any order" }
        )
    }

    /// What every link that may be made can do: the longest message in bytes that is always eager, and the longest that
    /// may be.
    pub(crate) fn eager(&self) -> (usize, usize) {
        let shm = self.shm.is_ok().then(|| self.shm_options.limits());
        let verbs = self.verbs_allowed.then(|| rc::Options::default().eager);
        let tcp = self.tcp.then_some(self.tcp_options.eager);
        let limits = [shm.map(|shm| (shm.eager, shm.unasked)), verbs.map(|n| (n, n)), tcp.map(|n| (n, n))];
        let least = |one: (usize, usize), other: (usize, usize)| (one.0.min(other.0), one.1.min(other.1));
        limits.into_iter().flatten().reduce(least).unwrap_or((0, 0))
    }
}

/// Whether the settings allow shared memory, and the longest message in bytes that every link may send unasked.
pub(crate) fn link_limits(config: &Config) -> (bool, u64) {
    let links = LinkSettings::with(config, Err(NoRdma::Natural("not looked for".into())));
    (links.shm.is_ok(), links.eager().1 as u64)
}

/// Where the peers' connections arrive.
pub(super) struct Listeners {
    local: Option<local::Listener>,
    tcp: Option<(tokio::net::TcpListener, u16)>,
}

impl Listeners {
    /// Opens what the settings allow.
    ///
    /// # Errors
    /// [`crate::Error::System`] when no port can be bound. A path that cannot be bound costs shared memory only.
    pub(super) fn open(options: &JoinOptions, secret: &Secret, rank: u32) -> Result<Listeners> {
        let local = options.links.shm.is_ok().then(|| local::Listener::open(secret.job, rank));
        let local = local.and_then(|opened| {
            opened.inspect_err(|error| tracing::warn!(%error, "no shared memory with other processes")).ok()
        });
        let tcp = if options.links.tcp || options.links.verbs_allowed {
            let (listener, port) = crate::bootstrap::rendezvous::bind(None, &options.listening)?;
            let listener =
                tokio::net::TcpListener::from_std(listener).map_err(|source| crate::Error::System {
                    during: "listening for links".into(),
                    source: Arc::new(source),
                    hint: "raise the limit of open files (`ulimit -n`)".into(),
                })?;
            Some((listener, port))
        } else {
            None
        };
        Ok(Listeners { local, tcp })
    }

    pub(super) fn path(&self) -> Option<String> {
        self.local.as_ref().map(local::Listener::path)
    }
    pub(super) fn port(&self) -> u16 {
        self.tcp.as_ref().map_or(0, |(_, port)| *port)
    }
    /// What peers are told: the address `own` that leads to the root first.
    pub(super) fn addresses(&self, listening: &Listening, own: Option<IpAddr>) -> Vec<IpAddr> {
        if self.tcp.is_none() {
            return Vec::new();
        }
        // Without the list, the address that leads to the root is what is left.
        let mut addresses = listening.choice.select(&interface::addresses().unwrap_or_default());
        if let Some(own) = own.filter(|own| !own.is_loopback()) {
            let allowed = listening.choice == Default::default() || addresses.contains(&own);
            if allowed {
                addresses.retain(|address| *address != own);
                addresses.insert(0, own);
            }
        }
        addresses.truncate(8);
        addresses
    }

    /// Accepts for as long as the session lives.
    pub(super) fn serve(self, station: &Arc<Station>, tasks: &mut JoinSet<Option<Command>>) {
        if let Some(listener) = self.local {
            tasks.spawn(local::accept(listener, station.clone()));
        }
        if let Some((listener, _)) = self.tcp {
            tasks.spawn(tcp::accept(listener, station.clone()));
        }
    }
}

/// Connections that a listener could not accept, since the last one that it could.
#[derive(Default)]
struct Unaccepted {
    since: Option<Instant>,
}

impl Unaccepted {
    fn accepted(&mut self) {
        self.since = None;
    }

    /// The backlog keeps who knocked; waits a moment. A rank that stays unreachable in a call gives the communicator
    /// up, as the others would wait for it until their deadline.
    async fn refused(&mut self, station: &Station, error: io::Error) {
        let now = Instant::now();
        let since = *self.since.get_or_insert_with(|| {
            tracing::warn!("{}: cannot accept a connection: {}", station.me, with_remedy(&error));
            now
        });
        if now.duration_since(since) >= UNREACHABLE {
            for shared in station.all().iter().filter(|shared| shared.progress.inside() != 0) {
                let why = format!("it cannot accept the connections of other ranks: {}", with_remedy(&error));
                let failure = Failure::Aborted { member: shared.me.clone(), why: why.clone() };
                shared.report(Report::Aborted { why }, failure);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How this rank introduces itself to `peer` of a communicator.
fn caller(shared: &Shared, peer: u32, purpose: Purpose, lane: u8) -> Caller {
    let target = shared.group.outside(peer).unwrap_or(u32::MAX);
    Caller { purpose, lane, rank: shared.station.me.rank, target, communicator: shared.id }
}

/// Why there is no link.
enum NoLink {
    /// Both ends know that there is none.
    Refused(String),
    /// It broke in the middle.
    Broken(String),
    /// The peer has left the communicator, after completing this call.
    Left(u32),
    /// The peer has not made the communicator yet.
    NotYet,
}

/// What becomes of a link that was tried to make.
enum Attempt {
    Made(Made),
    Failed(Command),
    /// The peer is late.
    Again,
}

/// Makes the link to rank `peer` of a communicator, which is higher in the job, and delivers it, or says why there is
/// none. The details of the peer are known.
pub(super) async fn connect(shared: Arc<Shared>, peer: u32) -> Option<Command> {
    let made = async {
        loop {
            match attempt(&shared, peer).await {
                Attempt::Made(made) => {
                    shared.deliver(made);
                    return None;
                }
                Attempt::Failed(command) => return Some(command),
                // The call that needs it has a deadline of its own, and knows by then who is late.
                Attempt::Again if shared.failure().is_some() => return None,
                Attempt::Again => tracing::debug!(communicator = shared.id, peer, "the peer is late"),
            }
        }
    };
    shared.while_open(made).await.flatten()
}

async fn attempt(shared: &Shared, peer: u32) -> Attempt {
    let station = &*shared.station;
    let lost = |kind: Kind, cause: &str| Attempt::Failed(link_lost(shared, peer, kind.word(), None, cause));
    let Some(details) = shared.group.outside(peer).and_then(|rank| station.peer(rank)) else {
        return Attempt::Failed(link_lost(shared, peer, "control", None, "the peer's address is not known"));
    };
    // What a way of making a link came to, or why there is none by it.
    let settled = |kind: Kind, tried: Result<std::result::Result<Made, NoLink>, Elapsed>| match tried {
        Ok(Ok(made)) => Ok(Attempt::Made(made)),
        Ok(Err(NoLink::Refused(reason))) => Err(reason),
        // The peer may believe that there is a link: a second one would not be the same at both ends.
        Ok(Err(NoLink::Broken(cause))) => Ok(lost(kind, &cause)),
        Ok(Err(NoLink::Left(last))) => Ok(Attempt::Failed(left(shared, peer, last))),
        Ok(Err(NoLink::NotYet)) => Ok(Attempt::Again),
        Err(_) => Ok(lost(kind, &format!("the peer did not answer within {} s", PATIENCE.as_secs()))),
    };

    let mut reason = why_not_shm(station, &details);
    let mut surprising = false;
    if let Ok(path) = shm_path(station, &details) {
        match settled(Kind::Shm, timeout(PATIENCE, local::connect(shared, peer, path)).await) {
            Ok(attempt) => return attempt,
            Err(why) => {
                reason = format!("same host, but no shared memory ({why})");
                surprising = true;
            }
        }
    }
    let no_rdma = match verbs::Way::find(station, &details) {
        Err(obstacle) => obstacle,
        Ok(way) => {
            let tried = timeout(PATIENCE, verbs::connect(shared, peer, &details, &way, &reason)).await;
            match settled(Kind::Verbs, tried) {
                Ok(attempt) => return attempt,
                Err(why) => Obstacle::Unexpected(why),
            }
        }
    };
    surprising |= matches!(no_rdma, Obstacle::Unexpected(_));
    if station.links.verbs_allowed {
        reason = format!("{reason}, and no RDMA ({})", no_rdma.into_reason());
        if station.links.verbs_only {
            return lost(Kind::Verbs, &format!("{reason}; RCCL_NET=verbs allows nothing else between hosts"));
        }
    }
    if !station.links.tcp {
        return lost(Kind::Tcp, &format!("{reason}; TCP is not allowed by RCCL_TRANSPORT"));
    }
    let reason = format!("{reason}: TCP");
    if surprising {
        warn_once(shared, peer, &reason);
    }
    match settled(Kind::Tcp, timeout(PATIENCE, tcp::connect(shared, peer, &details, reason)).await) {
        Ok(attempt) => attempt,
        Err(cause) => lost(Kind::Tcp, &cause),
    }
}

/// Where a peer with which memory may be shared listens, else why it may not.
fn shm_path<'a>(station: &Station, peer: &'a Details) -> std::result::Result<&'a str, String> {
    if peer.host.key != station.details.host.key {
        return Err("different hosts".into());
    }
    station.links.shm.clone()?;
    peer.path.as_deref().ok_or_else(|| "same host, but the peer could not open a path socket".into())
}

/// The reason why two ranks do not try to share memory; that they could not is known only to the end that tried.
fn why_not_shm(station: &Station, peer: &Details) -> String {
    shm_path(station, peer).err().unwrap_or_else(|| "same host, but no shared memory".into())
}

/// The report that the peer has left, and this rank needs it.
pub(super) fn left(shared: &Shared, peer: u32, last: u32) -> Command {
    let sequence = shared.progress.inside();
    let member = shared.group.outside(peer).and_then(|rank| shared.station.peer(rank));
    let member = member.map_or_else(
        || Member { rank: peer, host: "unknown host".into(), pid: 0 },
        |details| details.member(peer),
    );
    let failure = left_after(shared.id, member, last, sequence, format!("rank {}", shared.me.rank));
    shared.reporting(Report::Left { peer, last, sequence }, failure)
}

/// The failure of a communicator that `member` has left after completing call number `last`, although it is needed.
pub(super) fn left_after(id: u64, member: Member, last: u32, sequence: u32, seen_by: String) -> Failure {
    let what = if id == WORLD { "job" } else { "communicator" };
    Failure::PeerLost { member, how: format!("left the {what} after op #{last}"), sequence, seen_by }
}

/// Why a better way is not taken.
enum Obstacle {
    /// As it should be.
    Natural(String),
    /// It should have worked.
    Unexpected(String),
}

impl Obstacle {
    fn into_reason(self) -> String {
        let (Obstacle::Natural(reason) | Obstacle::Unexpected(reason)) = self;
        reason
    }
}

/// A fallback is never silent, and says so once for all peers.
fn warn_once(shared: &Shared, peer: u32, reason: &str) {
    if shared.station.fell_back.swap(true, Ordering::Relaxed) {
        tracing::debug!("{}: link to rank {peer}: {reason}", shared.me);
    } else {
        tracing::warn!("{}: link to rank {peer}: {reason} (further ones at debug level)", shared.me);
    }
}
