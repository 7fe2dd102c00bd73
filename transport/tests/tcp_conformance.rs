//! The suite that every link must pass, on TCP links of both address families and several shapes.
#![cfg(feature = "conformance")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

use rccl_transport::conformance::Pair;
use rccl_transport::{TcpLink, TcpOptions, conformance_suite};

fn pair(host: IpAddr, sockets: usize, options: TcpOptions) -> Pair {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (a, b): (Vec<_>, Vec<_>) =
        (0..sockets).map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0)).unzip();
    let link = |streams| Box::new(TcpLink::new(streams, &options).unwrap());
    Pair { links: [link(a), link(b)], regions: [None, None], service: Box::new(|| {}) }
}

mod ipv4 {
    use super::*;
    conformance_suite!(|| pair(Ipv4Addr::LOCALHOST.into(), 2, TcpOptions::default()));
}

mod ipv6_three_sockets {
    use super::*;
    conformance_suite!(|| {
        pair(Ipv6Addr::LOCALHOST.into(), 3, TcpOptions { stripe: 5000, ..TcpOptions::default() })
    });
}

mod small_buffers_five_sockets {
    use super::*;
    // Every transfer is partial, and pieces are cut at odd places.
    conformance_suite!(|| {
        let small =
            TcpOptions { socket_buffer: Some(32 << 10), stripe: 4097, eager: 3000, ..TcpOptions::default() };
        pair(Ipv4Addr::LOCALHOST.into(), 5, small)
    });
}
