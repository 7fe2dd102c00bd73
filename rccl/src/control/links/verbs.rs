//! Links over RDMA. Both ends meet over a TCP connection, which stays open beside the queue pairs.
//!
//! ```text
//! lower rank                                        higher rank
//!   connect to its port, handshake                      handshake
//!           <-   is the communicator there? ([`super::reception`])
//!   Offer   details, greeting                     ->   make queue pairs, connect them
//!           <-   Answer  greeting, or why not
//!   connect the queue pairs
//!   Done    or why not                            ->
//! ```
//!
//! Which ports talk to each other both ends compute from the details that they have of each other. Until `Done` each end
//! may find that it cannot; then the pair gets TCP, and both know the reason.

use super::reception::{self, Reception};
use super::tcp;
use super::{Made, NoLink};
use crate::bootstrap::frame;
use crate::bootstrap::handshake::{Caller, Purpose};
use crate::bootstrap::message::Details;
use crate::control::shared::Shared;
use crate::control::station::Station;
use crate::rdma::Rdma;
use rccl_topology::{Advert, Pairing, pair};
use rccl_transport::rc::{Connected, Hello, Options, Pending};
use rccl_transport::{Kind, rc};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[derive(Serialize, Deserialize)]
struct Offer {
    details: Details,
    hello: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    hello: Result<Vec<u8>, String>,
}

#[derive(Serialize, Deserialize)]
struct Done {
    connected: Result<(), String>,
}

/// The ports of two processes that talk to each other.
pub(super) struct Way {
    rdma: Arc<Rdma>,
    pairings: Vec<Pairing>,
    theirs: Vec<Advert>,
}

impl Way {
    /// How this process reaches a peer by RDMA.
    ///
    /// # Errors
    /// Why it does not, and whether that is no surprise.
    pub(super) fn find(station: &Station, peer: &Details) -> Result<Way, super::Obstacle> {
        use super::Obstacle::{Natural, Unexpected};
        use crate::rdma::NoRdma;
        let rdma = station.links.verbs.as_ref().map_err(|none| match none {
            NoRdma::Natural(reason) => Natural(reason.clone()),
            NoRdma::Unexpected(reason) => Unexpected(reason.clone()),
        })?;
        let theirs = match &peer.rdma {
            Ok(adverts) => adverts,
            Err(NoRdma::Natural(reason)) => return Err(Natural(format!("the peer has {reason}"))),
            Err(NoRdma::Unexpected(reason)) => return Err(Unexpected(format!("the peer has {reason}"))),
        };
        let pairings = pair(&rdma.adverts, theirs).map_err(|why| Unexpected(why.to_string()))?;
        Ok(Way { rdma: rdma.clone(), pairings, theirs: theirs.clone() })
    }

    /// Both ends of each pair of ports, for people.
    fn describe(&self) -> String {
        let one = |&Pairing { mine, theirs, .. }: &Pairing| {
            let (mine, theirs) = (&self.rdma.adverts[mine], &self.theirs[theirs]);
            let mtu = mine.mtu.min(theirs.mtu).map_or_else(String::new, |mtu| format!(", MTU {mtu}"));
            format!("{mine} to {theirs}{mtu}")
        };
        self.pairings.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// Makes this end's queue pairs.
    async fn prepare(&self) -> Result<Pending, String> {
        let rails: Vec<usize> = self.pairings.iter().map(|pairing| pairing.mine).collect();
        let queue_pairs = self.rdma.options.queue_pairs.min(rc::MOST_PAIRS / rails.len().max(1)).max(1);
        let options = Options { queue_pairs, ..self.rdma.options };
        let opened = self.rdma.rails.clone();
        aside(move || Pending::new(&opened, &rails, &options).map_err(|error| error.to_string())).await
    }
}

/// Does what may take a while away from the control thread.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

async fn join(pending: Pending, hello: &[u8]) -> Result<Connected, String> {
    let hello = Hello::from_bytes(hello).map_err(|error| error.to_string())?;
    aside(move || pending.connect(&hello).map_err(|error| error.to_string())).await
}

/// Makes a link to a higher rank.
///
/// # Errors
/// [`NoLink::Refused`] where both ends know that there is none.
pub(super) async fn connect(
    shared: &Shared,
    peer: u32,
    details: &Details,
    way: &Way,
    reason: &str,
) -> Result<Made, NoLink> {
    let station = &*shared.station;
    let addresses = tcp::usable(&station.details, details).map_err(NoLink::Refused)?;
    let caller = super::caller(shared, peer, Purpose::Verbs, 0);
    let mut socket = tcp::reach(&addresses, &station.secret, caller).await.map_err(NoLink::Refused)?;
    let broken = |error: io::Error| NoLink::Broken(format!("setting it up: {error}"));
    match reception::hear(&mut socket).await.map_err(broken)? {
        Reception::Welcome => {}
        Reception::Left { last } => return Err(NoLink::Left(last)),
        Reception::NotYet => return Err(NoLink::NotYet),
    }
    // What cannot be made here, the peer learns from the end of the connection.
    let pending = way.prepare().await.map_err(NoLink::Refused)?;
    let offer = Offer { details: station.details.clone(), hello: pending.hello().to_bytes() };
    write(&mut socket, &offer).await.map_err(broken)?;
    let answer: Answer = frame::read(&mut socket).await.map_err(broken)?;
    let hello = answer.hello.map_err(|why| NoLink::Refused(format!("the peer: {why}")))?;
    let joined = join(pending, &hello).await;
    let done = Done { connected: joined.as_ref().map(drop).map_err(String::clone) };
    write(&mut socket, &done).await.map_err(broken)?;
    let joined = joined.map_err(NoLink::Refused)?;
    made(peer, joined, socket, way, reason).map_err(NoLink::Broken)
}

/// Takes the rest of a connection that a lower rank has begun.
pub(super) async fn serve(mut socket: TcpStream, caller: Caller, station: Arc<Station>) {
    let Some((shared, peer)) = reception::receive(&mut socket, &station, caller).await else { return };
    let taken = tokio::time::timeout(super::PATIENCE, take(socket, caller, &shared, peer));
    match shared.while_open(taken).await {
        Some(Ok(Ok(made))) => shared.deliver(made),
        // The connecting end decides what comes of it.
        Some(Ok(Err(reason))) => tracing::debug!(peer, reason, "no RDMA with this rank"),
        Some(Err(_)) => tracing::debug!(peer, "a link was begun and not finished"),
        None => tracing::debug!(peer, "this rank left while a link was made"),
    }
}

async fn take(mut socket: TcpStream, caller: Caller, shared: &Shared, peer: u32) -> Result<Made, String> {
    let text = |error: io::Error| error.to_string();
    let offer: Offer = frame::read(&mut socket).await.map_err(text)?;
    let way = Way::find(&shared.station, &offer.details);
    let reason = super::why_not_shm(&shared.station, &offer.details);
    shared.station.meet(caller.rank, offer.details);
    let way = match way {
        Ok(way) => way,
        Err(obstacle) => return refuse(&mut socket, obstacle.into_reason()).await,
    };
    let ready = async {
        let pending = way.prepare().await?;
        let hello = pending.hello().to_bytes();
        Ok::<_, String>((hello, join(pending, &offer.hello).await?))
    };
    let (hello, joined) = match ready.await {
        Ok(ready) => ready,
        Err(why) => return refuse(&mut socket, why).await,
    };
    write(&mut socket, &Answer { hello: Ok(hello) }).await.map_err(text)?;
    let done: Done = frame::read(&mut socket).await.map_err(text)?;
    done.connected.map_err(|why| format!("the peer: {why}"))?;
    made(peer, joined, socket, &way, &reason)
}

async fn refuse<T>(socket: &mut TcpStream, why: String) -> Result<T, String> {
    let answer = Answer { hello: Err(why.clone()) };
    write(socket, &answer).await.map_err(|error| error.to_string())?;
    Err(why)
}

async fn write(socket: &mut TcpStream, message: &impl Serialize) -> io::Result<()> {
    socket.write_all(&frame::encode(message)?).await
}

fn made(peer: u32, joined: Connected, socket: TcpStream, way: &Way, reason: &str) -> Result<Made, String> {
    let side = socket.into_std().map_err(|error| format!("its socket cannot be handed over: {error}"))?;
    let link = joined.over(side).map_err(|error| error.to_string())?;
    let reason = format!("{reason}: verbs, {}", way.describe());
    Ok(Made { peer, link: Box::new(link), kind: Kind::Verbs, reason })
}
