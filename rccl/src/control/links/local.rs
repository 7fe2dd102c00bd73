//! Links through shared memory, and the registered memory of neighbours: everything that needs file descriptors to be
//! passed between two processes of a host.
//!
//! ```text
//! lower rank                                        higher rank
//!   connect to its path, handshake, same user?          handshake, same user?
//!           <-   is the communicator there? ([`super::reception`])
//!   Offer   nonce's address, + segment, doorbell   ->   read the nonce by process_vm_readv
//!           <-   Answer  nonce's address, could copy?, + doorbell
//!   read the nonce, map the segment
//!   Confirm could copy?                            ->   map the segment
//!           <-   Done
//! ```
//!
//! That the path opens and the segment maps is the proof that both are on one host.

use super::passing;
use super::reception::{self, Reception};
use super::{Made, NoLink};
use crate::bootstrap::handshake::{self, Caller, Purpose, Secret};
use crate::bootstrap::host::namespace;
use crate::bootstrap::message::Details;
use crate::bootstrap::serving::HANDSHAKE;
use crate::control::session::Command;
use crate::control::shared::Shared;
use crate::control::station::Station;
use crate::error::with_remedy;
use rand::Rng;
use rccl_transport::Kind;
use rccl_transport::memory::PeerRegions;
use rccl_transport::shm::{self, End, Reach, ShmLink};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

/// The longest path that a socket may have.
const LONGEST_PATH: usize = 107;
/// How long a full queue of the peer's listener is waited for.
const QUEUE: Duration = Duration::from_secs(10);

#[derive(Serialize, Deserialize)]
struct Offer {
    nonce: Nonce,
    details: Details,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    nonce: Nonce,
    copies: Result<(), String>,
}

#[derive(Serialize, Deserialize)]
struct Confirm {
    /// Whether copies work in both directions, else why not.
    copies: Result<(), String>,
}

#[derive(Serialize, Deserialize)]
struct Done {
    mapped: Result<(), String>,
}

#[derive(Serialize, Deserialize)]
struct Want {
    regions: Vec<u16>,
}

/// Answers one number of [`Want`]; its descriptor comes with it.
#[derive(Serialize, Deserialize)]
struct Have {
    region: u16,
    len: Option<u64>,
}

/// A random number in this process's memory that peers read to prove that they reach it.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Nonce {
    address: u64,
    value: u64,
}

impl Nonce {
    fn own() -> Nonce {
        static VALUE: OnceLock<u64> = OnceLock::new();
        let value = VALUE.get_or_init(rand::random);
        Nonce { address: std::ptr::from_ref(value) as u64, value: *value }
    }
}

/// The path socket of one rank; the path goes with it.
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    pub(super) fn open(job: u64, rank: u32) -> io::Result<Listener> {
        let name = name(job, rank, std::process::id());
        let mut path = directory()?.join(&name);
        if path.as_os_str().len() > LONGEST_PATH {
            path = private(Path::new("/tmp"))?.join(&name);
        }
        let _ = std::fs::remove_file(&path);
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        crate::fork::close_in_children(&socket);
        socket.bind(&socket2::SockAddr::unix(&path)?)?;
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
        let socket = UnixListener::from_std(OwnedFd::from(socket).into())?;
        Ok(Listener { socket, path })
    }

    pub(super) fn path(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What a rank's path socket is called; a process id means something in its own namespace only.
fn name(job: u64, rank: u32, pid: u32) -> String {
    format!("{}-{pid}-{job:016x}-{rank}", namespace("pid"))
}

/// This user's directory for sockets: only the user can enter it.
fn directory() -> io::Result<PathBuf> {
    let candidates =
        ["XDG_RUNTIME_DIR", "TMPDIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let mut last = None;
    for parent in candidates.filter(|path| path.is_absolute()).chain([PathBuf::from("/tmp")]) {
        match private(&parent) {
            Ok(directory) => return Ok(directory),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

fn private(parent: &Path) -> io::Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let path = parent.join(format!("rccl-{user}"));
    match std::fs::DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Somebody may have been there first: a directory, ours, and closed to others, or it is not used.
            let found = std::fs::symlink_metadata(&path)?;
            if found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0 {
                Ok(path)
            } else {
                Err(io::Error::other(format!("{} is not a private directory of user {user}", path.display())))
            }
        }
        Err(error) => Err(error),
    }
}

/// Removes the sockets of processes of this user that were killed. Cheap, and called once for a job.
pub(crate) fn sweep() {
    let Ok(entries) = directory().and_then(std::fs::read_dir) else { return };
    let own = namespace("pid");
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let mut words = name.split('-');
        let (Some(namespace), Some(pid)) = (words.next(), words.next()) else { continue };
        // A process of another pid namespace cannot be judged from here.
        if namespace.parse() == Ok(own)
            && pid.parse::<u32>().is_ok()
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Removes the path socket of a neighbour that was killed, if it lies where this process keeps its own.
pub(crate) fn forget(path: &str) {
    let path = Path::new(path);
    if directory().is_ok_and(|directory| path.parent() == Some(&directory)) {
        let _ = std::fs::remove_file(path);
    }
}

/// As [`forget`], for a rank whose path was never told: process `pid` of this pid namespace.
pub(crate) fn forget_rank(job: u64, rank: u32, pid: u32) {
    if let Ok(directory) = directory() {
        let _ = std::fs::remove_file(directory.join(name(job, rank, pid)));
    }
}

/// Connects to a neighbour's path and proves both ends to each other.
async fn reach(secret: &Secret, path: &str, caller: Caller) -> Result<UnixStream, String> {
    let deadline = Instant::now() + QUEUE;
    let mut stream = loop {
        match UnixStream::connect(path).await {
            Ok(stream) => break stream,
            // Its queue is full: many peers at once.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                let pause = Duration::from_millis(20).mul_f64(rand::rng().random_range(0.1..1.0));
                tokio::time::sleep(pause).await;
            }
            Err(error) => return Err(format!("{path} does not open: {}", with_remedy(&error))),
        }
    };
    same_user(&stream)?;
    match tokio::time::timeout(HANDSHAKE, handshake::introduce(&mut stream, secret, caller)).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(refusal)) => Err(format!("{path}: {refusal}")),
        Err(_) => Err(format!("{path}: no answer within {} s", HANDSHAKE.as_secs())),
    }
}

fn same_user(stream: &UnixStream) -> Result<i32, String> {
    let peer = stream.peer_cred().map_err(|error| format!("the peer's user cannot be told: {error}"))?;
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() != own {
        return Err(format!("the peer runs as user {} and this process as {own}", peer.uid()));
    }
    Ok(peer.pid().unwrap_or(0))
}

/// Whether the memory of process `pid` can be read from here.
fn prove(station: &Station, pid: i32, nonce: Nonce) -> Result<(), String> {
    station.links.copies.clone()?;
    if pid <= 0 {
        return Err("the peer's process is not visible in this pid namespace".into());
    }
    shm::prove_copy(pid, nonce.address, nonce.value).map_err(|error| format!("{error}"))
}

fn permit_copies(station: &Station) {
    if station.links.copies.is_ok()
        && let Err(error) = shm::allow_copies()
    {
        tracing::trace!(%error, "this kernel has no Yama to ask for permission");
    }
}

/// Makes a link to a higher rank of this host.
pub(super) async fn connect(shared: &Shared, peer: u32, path: &str) -> Result<Made, NoLink> {
    let station = &*shared.station;
    let caller = super::caller(shared, peer, Purpose::Local, 0);
    let mut stream = reach(&station.secret, path, caller).await.map_err(NoLink::Refused)?;
    let pid = same_user(&stream).map_err(NoLink::Refused)?;
    permit_copies(station);
    let refused = |error: &dyn std::fmt::Display| NoLink::Refused(error.to_string());
    let broken = |error: io::Error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            let cause =
                "setting it up: the peer closed the connection: its own log says why (often `ulimit -n`)";
            return NoLink::Broken(cause.into());
        }
        NoLink::Broken(format!("setting it up: {error}"))
    };

    match reception::hear(&mut stream).await.map_err(broken)? {
        Reception::Welcome => {}
        Reception::Left { last } => return Err(NoLink::Left(last)),
        Reception::NotYet => return Err(NoLink::NotYet),
    }
    let segment = shm::create_segment(&station.links.shm_options).map_err(|error| refused(&error))?;
    let offer = Offer { nonce: Nonce::own(), details: station.details.clone() };
    passing::send(&mut stream, &offer, &[segment.as_fd(), shared.bell.as_fd()]).await.map_err(broken)?;

    let (answer, descriptors) = passing::receive::<Answer>(&mut stream).await.map_err(broken)?;
    let [bell] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|_| {
        NoLink::Broken("no descriptor is left for it: raise the limit of open files (`ulimit -n`)".into())
    })?;
    let copies = prove(station, pid, answer.nonce).and(answer.copies);
    let reach = Reach { pid, copy: copies.is_ok() };
    let made = map(shared, peer, &segment, End::Creator, bell, reach, &copies);
    let made = match made {
        Ok(made) => made,
        // Closing tells the peer, which has mapped nothing yet.
        Err(reason) => return Err(NoLink::Refused(reason)),
    };
    passing::send(&mut stream, &Confirm { copies }, &[]).await.map_err(broken)?;
    let (done, _) = passing::receive::<Done>(&mut stream).await.map_err(broken)?;
    done.mapped.map_err(NoLink::Refused)?;
    Ok(made)
}

fn map(
    shared: &Shared,
    peer: u32,
    segment: &OwnedFd,
    end: End,
    bell: OwnedFd,
    reach: Reach,
    copies: &Result<(), String>,
) -> Result<Made, String> {
    let station = &*shared.station;
    let rank = shared.group.outside(peer).ok_or_else(|| format!("there is no rank {peer}"))?;
    let link = ShmLink::map(
        segment.as_fd(),
        end,
        &station.links.shm_options,
        shared.bell.clone(),
        bell,
        station.regions_of(rank),
        reach,
    )
    .map_err(|error| error.to_string())?;
    let reason = match copies {
        Ok(()) => "same host: shared memory".to_owned(),
        Err(why) => {
            let reason = format!(
                "same host: shared memory; process_vm copies refused ({why}): plain buffers are staged"
            );
            if station.links.copies.is_ok() {
                super::warn_once(shared, peer, &reason);
            }
            reason
        }
    };
    Ok(Made { peer, link: Box::new(link), kind: Kind::Shm, reason })
}

/// Accepts the links of lower ranks, and hands out registered memory.
pub(super) async fn accept(listener: Listener, station: Arc<Station>) -> Option<Command> {
    let mut unaccepted = super::Unaccepted::default();
    loop {
        match listener.socket.accept().await {
            Ok((stream, _)) => {
                unaccepted.accepted();
                tokio::spawn(serve(stream, station.clone()));
            }
            Err(error) => unaccepted.refused(&station, error).await,
        }
    }
}

async fn serve(mut stream: UnixStream, station: Arc<Station>) {
    let pid = match same_user(&stream) {
        Ok(pid) => pid,
        Err(reason) => return tracing::warn!("dropped a neighbour's connection: {reason}"),
    };
    let caller = match tokio::time::timeout(HANDSHAKE, handshake::admit(&mut stream, &station.secret)).await {
        Ok(Ok(caller)) if caller.target == station.me.rank => caller,
        Ok(Ok(caller)) => return tracing::debug!(?caller, "dropped a connection for another rank"),
        Ok(Err(refusal)) => return tracing::debug!("dropped a stranger's connection: {refusal}"),
        Err(_) => return tracing::debug!("dropped a connection without handshake"),
    };
    match caller.purpose {
        Purpose::Local if caller.rank < station.me.rank => {
            let Some((shared, peer)) = reception::receive(&mut stream, &station, caller).await else {
                return;
            };
            let taken = tokio::time::timeout(super::PATIENCE, take_offer(&mut stream, pid, &shared, peer));
            match shared.while_open(taken).await {
                Some(Ok(Ok(made))) => shared.deliver(made),
                // The connecting end decides what comes of it.
                Some(Ok(Err(reason))) => tracing::debug!(peer, reason, "no shared memory with this rank"),
                Some(Err(_)) => tracing::debug!(peer, "a link was begun and not finished"),
                None => tracing::debug!(peer, "this rank left while a link was made"),
            }
        }
        Purpose::Regions => {
            let handed = tokio::time::timeout(super::PATIENCE, hand_out(&mut stream, &station)).await;
            if let Ok(Err(error)) = handed {
                tracing::debug!(peer = caller.rank, %error, "registered memory was not handed over");
            }
        }
        _ => tracing::debug!(?caller, "dropped a connection with a purpose that does not belong here"),
    }
}

async fn take_offer(stream: &mut UnixStream, pid: i32, shared: &Shared, peer: u32) -> Result<Made, String> {
    let station = &*shared.station;
    let text = |error: io::Error| error.to_string();
    permit_copies(station);
    let (offer, descriptors) = passing::receive::<Offer>(stream).await.map_err(text)?;
    let [segment, bell] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| {
        tracing::warn!(peer, "no descriptor is left for a link: raise the limit of open files (`ulimit -n`)");
        "the peer's segment did not arrive".to_owned()
    })?;
    if let Some(rank) = shared.group.outside(peer) {
        station.meet(rank, offer.details);
    }
    let copies = prove(station, pid, offer.nonce);
    let answer = Answer { nonce: Nonce::own(), copies };
    passing::send(stream, &answer, &[shared.bell.as_fd()]).await.map_err(text)?;
    let (confirm, _) = passing::receive::<Confirm>(stream).await.map_err(text)?;
    let reach = Reach { pid, copy: confirm.copies.is_ok() };
    let made = map(shared, peer, &segment, End::Joiner, bell, reach, &confirm.copies);
    let mapped = made.as_ref().map(|_| ()).map_err(Clone::clone);
    passing::send(stream, &Done { mapped }, &[]).await.map_err(text)?;
    made
}

async fn hand_out(stream: &mut UnixStream, station: &Station) -> io::Result<()> {
    let (want, _) = passing::receive::<Want>(stream).await?;
    for region in want.regions {
        match station.regions.fd(region) {
            Some((descriptor, len)) => {
                let have = Have { region, len: Some(len as u64) };
                passing::send(stream, &have, &[descriptor.as_fd()]).await?;
            }
            None => passing::send(stream, &Have { region, len: None }, &[]).await?,
        }
    }
    Ok(())
}

/// Maps regions of rank `rank` of the job that links have asked for, and wakes the engines. A link that asked for what
/// cannot be had reports that.
pub(in crate::control) async fn fetch_regions(
    station: Arc<Station>,
    rank: u32,
    regions: Arc<PeerRegions>,
    numbers: Vec<u16>,
) -> Option<Command> {
    let fetched = tokio::time::timeout(super::PATIENCE, fetch(&station, rank, &regions, &numbers)).await;
    let cause = match fetched {
        Ok(Ok(())) => None,
        Ok(Err(cause)) => Some(cause),
        Err(_) => Some("the owner did not answer".into()),
    };
    if let Some(cause) = cause {
        // What was mapped before stays mapped.
        numbers
            .iter()
            .for_each(|&number| regions.fail(number, format!("fetching registered memory: {cause}")));
    }
    station.all().iter().for_each(|shared| shared.wake());
    None
}

async fn fetch(station: &Station, rank: u32, regions: &PeerRegions, numbers: &[u16]) -> Result<(), String> {
    let path = station.peer(rank).and_then(|details| details.path);
    let path = path.ok_or("the owner has no path socket")?;
    let purpose = Purpose::Regions;
    let caller = Caller { purpose, lane: 0, rank: station.me.rank, target: rank, communicator: 0 };
    let mut stream = reach(&station.secret, &path, caller).await?;
    let want = Want { regions: numbers.to_vec() };
    passing::send(&mut stream, &want, &[]).await.map_err(|error| error.to_string())?;
    for _ in numbers {
        let (have, descriptors) =
            passing::receive::<Have>(&mut stream).await.map_err(|error| error.to_string())?;
        match (have.len, descriptors.into_iter().next()) {
            (Some(len), Some(descriptor)) => {
                regions.insert(have.region, descriptor, len as usize).map_err(|error| error.to_string())?
            }
            _ => return Err(format!("the owner has no region {} or no descriptors left", have.region)),
        }
    }
    Ok(())
}
