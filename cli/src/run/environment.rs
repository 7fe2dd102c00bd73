//! What the ranks find in their environment.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

/// Where the ranks of a job meet, and where the user's own library may.
pub struct Meeting {
    host: String,
    /// For rccl.
    port: u16,
    /// `MASTER_PORT`, which rccl does not use.
    master_port: u16,
    /// A key for the ranks of this host; between hosts the user has to provide one.
    key: Option<String>,
    /// Keeps the ports away from other programs until the job ends; see [`reserve`].
    _reserved: Vec<Socket>,
}

impl Meeting {
    /// On the loopback interface, at ports that are free.
    pub fn on_this_host() -> io::Result<Meeting> {
        let ((port, first), (master_port, second)) = (reserve()?, reserve()?);
        // The environment of a process can be read by its user only, as a file in the user's directory.
        let key = Some(format!("{:032x}", rand::random::<u128>()));
        let host = Ipv4Addr::LOCALHOST.to_string();
        Ok(Meeting { host, port, master_port, key, _reserved: vec![first, second] })
    }

    /// At an address of the first host. The error says what is wrong with it.
    pub fn at(rendezvous: &str) -> Result<Meeting, String> {
        let wrong = || format!("--rendezvous {rendezvous}: expected host:port or [IPv6 address]:port");
        let (host, port) = rendezvous.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let ambiguous = bare.is_none() && host.contains(':');
        let master_port = port.checked_add(1).filter(|_| port != 0 && !host.is_empty() && !ambiguous);
        let host = bare.unwrap_or(host).to_owned();
        Ok(Meeting {
            host,
            port,
            master_port: master_port.ok_or_else(wrong)?,
            key: None,
            _reserved: Vec::new(),
        })
    }

    /// The variables of one rank.
    pub fn variables(
        &self,
        rank: u32,
        size: u32,
        local_rank: u32,
        local_size: u32,
    ) -> Vec<(&'static str, String)> {
        let address = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        let mut variables = vec![
            ("RCCL_RANK", rank.to_string()),
            ("RCCL_SIZE", size.to_string()),
            ("RCCL_LOCAL_RANK", local_rank.to_string()),
            ("RCCL_COMM_ID", address),
            ("RANK", rank.to_string()),
            ("WORLD_SIZE", size.to_string()),
            ("LOCAL_RANK", local_rank.to_string()),
            ("LOCAL_WORLD_SIZE", local_size.to_string()),
            ("MASTER_ADDR", self.host.clone()),
            ("MASTER_PORT", self.master_port.to_string()),
        ];
        // A key that the user chose, by either name, stays.
        let chosen = ["RCCL_KEY", "RCCL_KEY_FILE"].iter().any(|name| std::env::var_os(name).is_some());
        variables.extend(self.key.iter().filter(|_| !chosen).map(|key| ("RCCL_KEY", key.clone())));
        variables
    }
}

/// A port of the loopback interface that the system gives to nobody else while the socket lives.
///
/// The socket is bound and never listens. A rank can still bind the port, because both sides set SO_REUSEADDR and
/// neither listens at that moment; the system's own choice of ports passes it over.
fn reserve() -> io::Result<(u16, Socket)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
    let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((address.port(), socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_rank_can_listen_on_the_reserved_port() {
        let (port, _socket) = reserve().unwrap();
        drop(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
        drop(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    }

    #[test]
    fn a_rendezvous_has_two_ports() {
        let meeting = Meeting::at("[fd00::1]:4000").unwrap();
        let variables = meeting.variables(5, 8, 1, 4);
        for expected in
            [("RCCL_COMM_ID", "[fd00::1]:4000"), ("MASTER_ADDR", "fd00::1"), ("MASTER_PORT", "4001")]
        {
            assert!(variables.contains(&(expected.0, expected.1.into())), "{expected:?}");
        }
        for wrong in ["host", "host:", "host:0", "host:65535", "::1:400", ":4000"] {
            assert!(Meeting::at(wrong).is_err(), "{wrong}");
        }
    }
}
