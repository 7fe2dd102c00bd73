//! TCP links: several authenticated sockets from the lower rank to the higher.

use super::Made;
use crate::bootstrap::frame;
use crate::bootstrap::handshake::{self, Caller, Purpose, Refusal, Secret};
use crate::bootstrap::message::Details;
use crate::bootstrap::serving::HANDSHAKE;
use crate::control::session::{Command, link_lost};
use crate::control::shared::Shared;
use rand::Rng;
use rccl_transport::{Kind, TcpLink};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// How often an address that does not answer is tried again.
const ATTEMPTS: u32 = 5;

/// What the connecting end says on its first socket.
#[derive(Serialize, Deserialize)]
struct Note {
    /// Why it is TCP.
    reason: String,
    details: Details,
}

/// Connects all sockets of a link.
///
/// # Errors
/// What the last attempt met.
pub(super) async fn connect(
    shared: &Shared,
    secret: &Secret,
    peer: u32,
    details: &Details,
    reason: String,
) -> Result<Made, String> {
    let addresses = usable(&shared.details, details)?;
    let mut sockets = Vec::new();
    for lane in 0..shared.links.sockets {
        let caller = Caller { purpose: Purpose::Tcp, lane, rank: shared.me.rank, target: peer };
        let mut socket = reach(&addresses, secret, caller).await?;
        if lane == 0 {
            let note = Note { reason: reason.clone(), details: shared.details.clone() };
            let note = frame::encode(&note).map_err(|error| error.to_string())?;
            socket.write_all(&note).await.map_err(|error| format!("the first socket broke: {error}"))?;
        }
        sockets.push(socket);
    }
    link(shared, peer, sockets, reason)
}

/// The peer's addresses that can lead to it and not to somebody here.
fn usable(own: &Details, peer: &Details) -> Result<Vec<SocketAddr>, String> {
    if peer.addresses.is_empty() {
        return Err("the peer does not use TCP".into());
    }
    let together = own.host.network != 0 && own.host.network == peer.host.network;
    let usable: Vec<SocketAddr> = peer
        .addresses
        .iter()
        // An address that this host has too (a container bridge, loopback) would lead back here.
        .filter(|address| together || !(address.is_loopback() || own.addresses.contains(address)))
        .map(|&address| SocketAddr::new(address, peer.port))
        .collect();
    if usable.is_empty() {
        return Err(format!(
            "{} offers only addresses that do not lead there from another host ({}): set RCCL_SOCKET_IFNAME there",
            peer.host.name,
            peer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ));
    }
    Ok(usable)
}

async fn reach(addresses: &[SocketAddr], secret: &Secret, caller: Caller) -> Result<TcpStream, String> {
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            let pause = Duration::from_millis(50 << attempt).mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::time::sleep(pause).await;
        }
        for address in addresses {
            let tried = async {
                let mut socket = TcpStream::connect(address).await?;
                crate::fork::close_in_children(&socket);
                socket.set_nodelay(true)?;
                handshake::introduce(&mut socket, secret, caller).await?;
                Ok::<_, Refusal>(socket)
            };
            match tokio::time::timeout(HANDSHAKE, tried).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(refusal)) => last = format!("{address}: {refusal}"),
                Err(_) => last = format!("{address}: no answer within {} s", HANDSHAKE.as_secs()),
            }
        }
    }
    Err(last)
}

fn link(shared: &Shared, peer: u32, sockets: Vec<TcpStream>, reason: String) -> Result<Made, String> {
    let sockets: Result<Vec<std::net::TcpStream>, _> = sockets.into_iter().map(TcpStream::into_std).collect();
    let sockets = sockets.map_err(|error| format!("a socket cannot be handed over: {error}"))?;
    let link = TcpLink::new(sockets, &shared.links.tcp_options).map_err(|error| error.to_string())?;
    Ok(Made { peer, link: Box::new(link), kind: Kind::Tcp, reason })
}

/// The sockets of links that are not complete yet, by peer.
type Halves = Mutex<HashMap<u32, Half>>;

#[derive(Default)]
struct Half {
    sockets: Vec<Option<TcpStream>>,
    reason: String,
}

/// Accepts the sockets of lower ranks.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, secret: Secret) -> Option<Command> {
    let halves = Arc::new(Halves::default());
    let mut unaccepted = super::Unaccepted::default();
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                unaccepted.accepted();
                crate::fork::close_in_children(&socket);
                let (shared, secret, halves) = (shared.clone(), secret.clone(), halves.clone());
                tokio::spawn(async move {
                    let admitted = admit(socket, &shared, &secret);
                    let deadline = Instant::now() + HANDSHAKE;
                    match tokio::time::timeout_at(deadline, admitted).await {
                        Ok(Ok((caller, socket, note))) => {
                            enter(&shared, &halves, caller, socket, note);
                        }
                        Ok(Err(refusal)) => {
                            tracing::debug!(%address, "dropped a stranger's connection: {refusal}");
                        }
                        Err(_) => tracing::debug!(%address, "dropped a connection without handshake"),
                    }
                });
            }
            Err(error) => unaccepted.refused(&shared, error).await,
        }
    }
}

async fn admit(
    mut socket: TcpStream,
    shared: &Shared,
    secret: &Secret,
) -> Result<(Caller, TcpStream, Option<Note>), Refusal> {
    socket.set_nodelay(true)?;
    let caller = handshake::admit(&mut socket, secret).await?;
    let fits = caller.purpose == Purpose::Tcp
        && caller.target == shared.me.rank
        && caller.rank < shared.me.rank
        && caller.lane < shared.links.sockets;
    if !fits {
        return Err(Refusal::Stranger { began: format!("{caller:?}") });
    }
    let note = if caller.lane == 0 { Some(frame::read(&mut socket).await?) } else { None };
    Ok((caller, socket, note))
}

fn enter(shared: &Shared, halves: &Halves, caller: Caller, socket: TcpStream, note: Option<Note>) {
    let mut halves = halves.lock().unwrap_or_else(PoisonError::into_inner);
    let half = halves.entry(caller.rank).or_default();
    half.sockets.resize_with(usize::from(shared.links.sockets), || None);
    half.sockets[usize::from(caller.lane)] = Some(socket);
    if let Some(note) = note {
        half.reason = note.reason;
        shared.peers().insert(caller.rank, note.details);
    }
    if half.sockets.iter().any(Option::is_none) {
        return;
    }
    let Some(half) = halves.remove(&caller.rank) else { return };
    match link(shared, caller.rank, half.sockets.into_iter().flatten().collect(), half.reason) {
        Ok(made) => shared.deliver(made),
        Err(cause) => shared.command(link_lost(shared, caller.rank, "tcp", 0, &cause)),
    }
}
