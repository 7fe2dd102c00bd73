//! A client of PyTorch's TCPStore: as much of its protocol as one value needs.
//!
//! Found by watching torch 2.8 and 2.15; both servers, the older one and that on libuv, understand it. Integers are in
//! the byte order of the host, strings and values are a `u64` length and the bytes. A request is one byte and its
//! arguments:
//!
//! ```text
//! VALIDATE  0  magic u32                no answer; must be the first
//! SET       1  key, value               no answer
//! GET       3  key                      value; the key must exist
//! CHECK     5  number u64, keys         0: all exist, 1: not
//! PING     13  nonce u32                the nonce
//! ```
//!
//! A set has no answer, so a CHECK follows it on the same connection: its answer proves that the value is there. To
//! wait, CHECK is repeated instead of WAIT, whose cancellation differs between versions.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

const MAGIC: u32 = 0x3C85_F7CE;
const VALIDATE: u8 = 0;
const SET: u8 = 1;
const GET: u8 = 3;
const CHECK: u8 = 5;
const PING: u8 = 13;

/// A value that this client would read is 128 bytes: more than this is another protocol.
const LONGEST: u64 = 4096;

/// A connection to a store.
pub(super) struct TcpStore {
    stream: TcpStream,
}

impl TcpStore {
    /// Connects, and tries again until the deadline while the name is unknown or nobody listens.
    pub(super) fn connect(host: &str, port: u16, deadline: Instant) -> Result<TcpStore> {
        let mut pause = Duration::from_millis(10);
        loop {
            let error = match TcpStore::try_connect(host, port, deadline) {
                Ok(store) => return Ok(store),
                Err(error) => error,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left <= pause {
                return Err(Error::new(error.kind(), format!("{host}:{port}: {error}")));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    fn try_connect(host: &str, port: u16, deadline: Instant) -> Result<TcpStore> {
        let mut last = Error::new(ErrorKind::NotFound, "the name has no address");
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, remaining(deadline)?) {
                Ok(stream) => return TcpStore::greet(stream, deadline),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn greet(stream: TcpStream, deadline: Instant) -> Result<TcpStore> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(remaining(deadline)?))?;
        let mut store = TcpStore { stream };
        let nonce = std::process::id();
        let mut request = vec![VALIDATE];
        request.extend(MAGIC.to_ne_bytes());
        request.push(PING);
        request.extend(nonce.to_ne_bytes());
        store.stream.write_all(&request)?;
        let mut answer = [0; 4];
        store.read(&mut answer, deadline.min(Instant::now() + Duration::from_secs(10)))?;
        if u32::from_ne_bytes(answer) != nonce {
            return Err(Error::new(ErrorKind::InvalidData, "what listens there is no TCPStore"));
        }
        Ok(store)
    }

    /// Stores a value, and returns when the store has it.
    pub(super) fn set(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let mut request = vec![SET];
        put(&mut request, key.as_bytes());
        put(&mut request, value);
        self.stream.write_all(&request)?;
        match self.check(key, Instant::now() + Duration::from_secs(10))? {
            true => Ok(()),
            false => Err(Error::other("the store did not keep the value")),
        }
    }

    /// The value of a key, as soon as it has one.
    pub(super) fn wait_and_get(&mut self, key: &str, deadline: Instant) -> Result<Vec<u8>> {
        let mut pause = Duration::from_millis(1);
        while !self.check(key, deadline)? {
            if remaining(deadline)? <= pause {
                return Err(Error::new(ErrorKind::TimedOut, "rank 0 has not published it in time"));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(200));
        }
        let mut request = vec![GET];
        put(&mut request, key.as_bytes());
        self.stream.write_all(&request)?;
        let mut length = [0; 8];
        self.read(&mut length, deadline)?;
        let length = u64::from_ne_bytes(length);
        if length > LONGEST {
            return Err(Error::new(ErrorKind::InvalidData, format!("the store answers with {length} bytes")));
        }
        let mut value = vec![0; length as usize];
        self.read(&mut value, deadline)?;
        Ok(value)
    }

    fn check(&mut self, key: &str, deadline: Instant) -> Result<bool> {
        let mut request = vec![CHECK];
        request.extend(1u64.to_ne_bytes());
        put(&mut request, key.as_bytes());
        self.stream.write_all(&request)?;
        let mut answer = [0; 1];
        self.read(&mut answer, deadline)?;
        match answer[0] {
            0 => Ok(true),
            1 => Ok(false),
            other => Err(Error::new(ErrorKind::InvalidData, format!("the store answers {other} to a check"))),
        }
    }

    fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.stream.set_read_timeout(Some(remaining(deadline)?))?;
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(Error::new(ErrorKind::UnexpectedEof, "the store closed the connection")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(Error::new(ErrorKind::TimedOut, "the store did not answer in time"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn put(request: &mut Vec<u8>, bytes: &[u8]) {
    request.extend((bytes.len() as u64).to_ne_bytes());
    request.extend(bytes);
}

/// What is left, never zero: a timeout of zero means none to the socket.
fn remaining(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(Error::new(ErrorKind::TimedOut, "the deadline has passed")) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_silent_server_and_an_absent_one_end_at_the_deadline() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "no-such-host.invalid"] {
            let start = Instant::now();
            assert!(TcpStore::connect(host, port, start + Duration::from_millis(200)).is_err());
            assert!(start.elapsed() < Duration::from_secs(8), "{host}: {:?}", start.elapsed());
        }
    }
}
