//! TCP links: several authenticated sockets from the lower rank to the higher.

use super::reception::{self, Reception};
use super::{Made, NoLink};
use crate::bootstrap::frame;
use crate::bootstrap::handshake::{self, Caller, Purpose, Refusal, Secret};
use crate::bootstrap::interface::{self, Address};
use crate::bootstrap::message::Details;
use crate::bootstrap::serving::HANDSHAKE;
use crate::control::session::{Command, link_lost};
use crate::control::shared::Shared;
use crate::control::station::Station;
use rand::Rng;
use rccl_transport::{Kind, TcpLink};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

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
    peer: u32,
    details: &Details,
    reason: String,
) -> Result<Made, NoLink> {
    let station = &*shared.station;
    let addresses = usable(&station.details, details).map_err(NoLink::Refused)?;
    let mut sockets = Vec::new();
    for lane in 0..station.links.sockets {
        let caller = super::caller(shared, peer, Purpose::Tcp, lane);
        let mut socket = reach(&addresses, &station.secret, caller).await.map_err(NoLink::Refused)?;
        if lane == 0 {
            let broken = |error: io::Error| NoLink::Broken(format!("the first socket broke: {error}"));
            match reception::hear(&mut socket).await.map_err(broken)? {
                Reception::Welcome => {}
                Reception::Left { last } => return Err(NoLink::Left(last)),
                Reception::NotYet => return Err(NoLink::NotYet),
            }
            let note = Note { reason: reason.clone(), details: station.details.clone() };
            let note = frame::encode(&note).map_err(broken)?;
            socket.write_all(&note).await.map_err(broken)?;
        }
        sockets.push(socket);
    }
    link(shared, peer, sockets, reason).map_err(NoLink::Refused)
}

/// The peer's addresses that can lead to it and not to somebody here, those on a subnet of this host first: a router may
/// know the others, and may not.
pub(super) fn usable(own: &Details, peer: &Details) -> Result<Vec<SocketAddr>, String> {
    if peer.addresses.is_empty() {
        return Err("the peer does not use TCP".into());
    }
    let together = own.host.network != 0 && own.host.network == peer.host.network;
    let here = if together { Vec::new() } else { interface::addresses().unwrap_or_default() };
    let usable = leading_there(&peer.addresses, &own.addresses, &here, together);
    if usable.is_empty() {
        return Err(format!(
            "{} offers only addresses that do not lead there from another host ({}): set RCCL_SOCKET_IFNAME there",
            peer.host.name,
            peer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ));
    }
    Ok(usable.into_iter().map(|ip| SocketAddr::new(ip, peer.port)).collect())
}

/// Of `addresses`, which a peer tells of itself, those that lead to it, the near ones first. `own` are those that this host
/// tells, `here` those that it has; `together`: both are in one network namespace.
fn leading_there(addresses: &[IpAddr], own: &[IpAddr], here: &[Address], together: bool) -> Vec<IpAddr> {
    let is_here = |ip: &IpAddr| own.contains(ip) || here.iter().any(|address| address.ip == *ip);
    let mut leading = addresses.to_vec();
    // An address that this host has too (a container bridge, loopback) would lead back here.
    leading.retain(|ip| together || !(ip.is_loopback() || is_here(ip)));
    let reaches = |address: &Address, ip: &IpAddr| {
        !address.dead_end && address.subnet.is_some_and(|subnet| subnet.contains(*ip))
    };
    leading.sort_by_key(|ip| !here.iter().any(|address| reaches(address, ip)));
    leading
}

pub(super) async fn reach(
    addresses: &[SocketAddr],
    secret: &Secret,
    caller: Caller,
) -> Result<TcpStream, String> {
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
    let link = TcpLink::new(sockets, &shared.station.links.tcp_options).map_err(|error| error.to_string())?;
    Ok(Made { peer, link: Box::new(link), kind: Kind::Tcp, reason })
}

/// A communicator's links that are not complete yet, by peer.
#[derive(Default)]
pub(in crate::control) struct Halves(Mutex<HashMap<u32, Half>>);

#[derive(Default)]
struct Half {
    sockets: Vec<Option<TcpStream>>,
    reason: String,
}

impl Halves {
    fn locked(&self) -> MutexGuard<'_, HashMap<u32, Half>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(in crate::control) fn clear(&self) {
        self.locked().clear();
    }
}

/// Accepts the sockets of lower ranks.
pub(super) async fn accept(listener: TcpListener, station: Arc<Station>) -> Option<Command> {
    let mut unaccepted = super::Unaccepted::default();
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                unaccepted.accepted();
                crate::fork::close_in_children(&socket);
                tokio::spawn(serve(socket, address, station.clone()));
            }
            Err(error) => unaccepted.refused(&station, error).await,
        }
    }
}

async fn serve(mut socket: TcpStream, address: SocketAddr, station: Arc<Station>) {
    let caller = match tokio::time::timeout(HANDSHAKE, admit(&mut socket, &station)).await {
        Ok(Ok(caller)) => caller,
        Ok(Err(refusal)) => return tracing::debug!(%address, "dropped a stranger's connection: {refusal}"),
        Err(_) => return tracing::debug!(%address, "dropped a connection without handshake"),
    };
    if caller.purpose == Purpose::Verbs {
        return super::verbs::serve(socket, caller, station).await;
    }
    // The first socket is answered, and the others come when the answer was heard.
    if caller.lane > 0 {
        if let Some(shared) = station.find(caller.communicator)
            && let Some(peer) = shared.group.inside(caller.rank)
        {
            enter(&shared, peer, caller.lane, socket, None);
        }
        return;
    }
    let Some((shared, peer)) = reception::receive(&mut socket, &station, caller).await else { return };
    let note = tokio::time::timeout(HANDSHAKE, frame::read::<Note>(&mut socket));
    match shared.while_open(note).await {
        Some(Ok(Ok(note))) => {
            station.meet(caller.rank, note.details);
            enter(&shared, peer, 0, socket, Some(note.reason));
        }
        Some(Ok(Err(error))) => tracing::debug!(%address, %error, "a link was begun and not finished"),
        Some(Err(_)) => tracing::debug!(%address, "a link was begun and not finished"),
        None => {}
    }
}

async fn admit(socket: &mut TcpStream, station: &Station) -> Result<Caller, Refusal> {
    socket.set_nodelay(true)?;
    let caller = handshake::admit(socket, &station.secret).await?;
    let lanes = match caller.purpose {
        Purpose::Tcp if station.links.tcp => station.links.sockets,
        Purpose::Verbs => 1,
        _ => 0,
    };
    let fits = caller.target == station.me.rank && caller.rank < station.me.rank && caller.lane < lanes;
    if !fits {
        return Err(Refusal::Stranger { began: format!("{caller:?}") });
    }
    Ok(caller)
}

/// Takes a socket of a link in; the first comes with a `reason`.
fn enter(shared: &Shared, peer: u32, lane: u8, socket: TcpStream, reason: Option<String>) {
    let mut halves = shared.halves.locked();
    let half = halves.entry(peer).or_default();
    half.sockets.resize_with(usize::from(shared.station.links.sockets), || None);
    half.sockets[usize::from(lane)] = Some(socket);
    if let Some(reason) = reason {
        half.reason = reason;
    }
    if half.sockets.iter().any(Option::is_none) {
        return;
    }
    let Some(half) = halves.remove(&peer) else { return };
    drop(halves);
    match link(shared, peer, half.sockets.into_iter().flatten().collect(), half.reason) {
        Ok(made) => shared.deliver(made),
        Err(cause) => shared.station.command(link_lost(shared, peer, "tcp", None, &cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    /// An interface's address, with the length of its subnet.
    fn at(interface: &str, ip: &str, length: u8, dead_end: bool) -> Address {
        let ip = ip.parse().unwrap();
        Address { interface: interface.into(), ip, subnet: rccl_topology::Prefix::new(ip, length), dead_end }
    }

    #[test]
    fn addresses_of_both_hosts_and_of_no_other_are_told_apart() {
        let here = [
            at("docker0", "172.17.0.1", 16, true),
            at("br-c", "172.18.0.1", 16, true),
            at("eth1", "10.2.0.1", 24, false),
        ];
        let told = ips(&["127.0.0.1", "172.17.0.1", "172.18.0.9", "10.1.0.2", "10.2.0.2"]);
        // The bridge of containers has its subnet on this host, where the peer is not.
        let leading = ips(&["10.2.0.2", "172.18.0.9", "10.1.0.2"]);
        assert_eq!(leading_there(&told, &ips(&["10.2.0.1"]), &here, false), leading);
        assert_eq!(leading_there(&told, &[], &[], true), told);
        assert_eq!(leading_there(&ips(&["172.17.0.1"]), &[], &here, false), ips(&[]));
        assert_eq!(leading_there(&ips(&["10.2.0.1"]), &ips(&["10.2.0.1"]), &[], false), ips(&[]));
    }

    #[test]
    fn the_peer_s_order_stays_among_the_near_and_the_far() {
        let here = [at("eth0", "fd07::1", 64, false), at("eth1", "10.2.0.1", 24, false)];
        let told = ips(&["10.9.0.2", "10.2.0.2", "10.8.0.2", "fd07::2"]);
        let leading = ips(&["10.2.0.2", "fd07::2", "10.9.0.2", "10.8.0.2"]);
        assert_eq!(leading_there(&told, &[], &here, false), leading);
    }
}
