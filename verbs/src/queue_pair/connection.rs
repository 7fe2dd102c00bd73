//! What two queue pairs agree on, and how patient they are.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::gid::Gid;
use crate::port::Mtu;
use crate::sys::{ibv_ah_attr, ibv_global_route, ibv_qp_attr, ibv_qp_attr_mask as Mask};

use super::State;

/// A queue pair's number on its device: 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QpNumber(pub u32);

impl fmt::Display for QpNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A packet sequence number: 24 bits. Both ends agree on the first of each direction; a random one keeps packets of an
/// earlier connection from being taken for those of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Psn(u32);

impl Psn {
    /// The lower 24 bits.
    pub fn new(bits: u32) -> Psn {
        Psn(bits & 0xff_ffff)
    }

    /// As a number, to tell the peer.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// How long a sender waits for an acknowledgement before it sends again: 4.096 us doubled `exponent` times. Devices may
/// wait up to four times as long (InfiniBand Architecture, volume 1, section 9.7.6.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AckTimeout(u8);

impl AckTimeout {
    /// `exponent` is 1 to 31: 14 is 67 ms, 18 is 1.07 s, 20 is 4.3 s. Verbs take 0 for waiting for ever; here nothing
    /// does.
    pub fn new(exponent: u8) -> Option<AckTimeout> {
        (1..=31).contains(&exponent).then_some(AckTimeout(exponent))
    }

    /// As time.
    pub fn duration(self) -> Duration {
        Duration::from_nanos(4096 << self.0)
    }

    /// The exponent.
    pub fn exponent(self) -> u8 {
        self.0
    }
}

/// All that a queue pair needs to know to talk to another. Make one with [`Connection::new`] and change what is to be
/// changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// Index of the own address in the port's table of GIDs ([`Context::gids`](crate::Context::gids)).
    pub gid_index: u8,
    /// The peer's address, of the same type.
    pub destination: Gid,
    /// The peer port's local identifier on InfiniBand; 0 on Ethernet.
    pub destination_lid: u16,
    /// Payload of a packet: the lesser of both ports' active MTU.
    pub mtu: Mtu,
    /// Routers that a packet may pass.
    pub hop_limit: u8,
    /// The traffic class of the IP header: DSCP in its upper 6 bits, ECN in the lower 2. Switches choose queues, and
    /// mark congestion, by it.
    pub traffic_class: u8,
    /// The service level, 0 to 15; on Ethernet the lower 3 bits are the VLAN's priority.
    pub service_level: u8,
    /// 20 bits, from which RoCE v2 computes the UDP source port (Linux 5.7 and newer), so that routers which spread by
    /// ports send queue pairs different ways. 0: computed from both numbers of queue pairs.
    pub flow_label: u32,
    /// The peer's queue pair.
    pub peer: QpNumber,
    /// The first packet's number from the peer: what that has as `send_psn`.
    pub receive_psn: Psn,
    /// The first packet's number to the peer.
    pub send_psn: Psn,
    /// How long to wait for the peer's acknowledgement.
    pub timeout: AckTimeout,
    /// How often to send again when it does not come, 0 to 7; then requests fail with
    /// [`Status::RetriesExceeded`](crate::Status::RetriesExceeded).
    pub retries: u8,
    /// How often to send again when the peer has no receive request posted, 0 to 6; 7 is without end. Then requests fail
    /// with [`Status::ReceiverNotReady`](crate::Status::ReceiverNotReady).
    pub receiver_not_ready_retries: u8,
    /// How long the peer is to wait when this side has no receive request posted: a code from 0 to 31 (InfiniBand
    /// Architecture, table 45); 12 is 0.64 ms, 1 is 10 us, 31 is 491 ms.
    pub receiver_not_ready_delay: u8,
}

impl Connection {
    /// A connection to a peer's queue pair with what suits one network: 64 hops, no traffic class, service level or flow
    /// label, acknowledgements within 1.07 s, 7 retries, 6 more when no receive request is posted, 0.64 ms apart.
    pub fn new(
        gid_index: u8,
        destination: Gid,
        mtu: Mtu,
        peer: QpNumber,
        receive_psn: Psn,
        send_psn: Psn,
    ) -> Connection {
        Connection {
            gid_index,
            destination,
            destination_lid: 0,
            mtu,
            hop_limit: 64,
            traffic_class: 0,
            service_level: 0,
            flow_label: 0,
            peer,
            receive_psn,
            send_psn,
            timeout: AckTimeout(18),
            retries: 7,
            receiver_not_ready_retries: 6,
            receiver_not_ready_delay: 12,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let at_most = |what: &str, value: u32, most: u32| {
            if value <= most {
                return Ok(());
            }
            Err(Error::argument(format!("{what} is {value}, and may be 0 to {most}")))
        };
        at_most("the service level", self.service_level.into(), 15)?;
        at_most("the flow label", self.flow_label, 0xf_ffff)?;
        at_most("the peer's queue pair number", self.peer.0, 0xff_ffff)?;
        at_most("the number of retries", self.retries.into(), 7)?;
        at_most("the number of receiver-not-ready retries", self.receiver_not_ready_retries.into(), 7)?;
        at_most("the code of the receiver-not-ready delay", self.receiver_not_ready_delay.into(), 31)
    }

    /// Attributes for the step to ready-to-receive, and which they are.
    pub(super) fn receiving(&self, port: u8) -> (ibv_qp_attr, Mask) {
        let attributes = ibv_qp_attr {
            qp_state: State::ReadyToReceive.raw(),
            path_mtu: self.mtu.raw(),
            dest_qp_num: self.peer.0,
            rq_psn: self.receive_psn.0,
            max_dest_rd_atomic: READS,
            min_rnr_timer: self.receiver_not_ready_delay,
            ah_attr: ibv_ah_attr {
                grh: ibv_global_route {
                    dgid: self.destination.raw(),
                    flow_label: self.flow_label,
                    sgid_index: self.gid_index,
                    hop_limit: self.hop_limit,
                    traffic_class: self.traffic_class,
                },
                dlid: self.destination_lid,
                sl: self.service_level,
                is_global: 1,
                port_num: port,
                ..Default::default()
            },
            ..Default::default()
        };
        let which = Mask::IBV_QP_STATE
            | Mask::IBV_QP_AV
            | Mask::IBV_QP_PATH_MTU
            | Mask::IBV_QP_DEST_QPN
            | Mask::IBV_QP_RQ_PSN
            | Mask::IBV_QP_MAX_DEST_RD_ATOMIC
            | Mask::IBV_QP_MIN_RNR_TIMER;
        (attributes, which)
    }

    /// Attributes for the step to ready-to-send, and which they are.
    pub(super) fn sending(&self) -> (ibv_qp_attr, Mask) {
        let attributes = ibv_qp_attr {
            qp_state: State::ReadyToSend.raw(),
            sq_psn: self.send_psn.0,
            timeout: self.timeout.0,
            retry_cnt: self.retries,
            rnr_retry: self.receiver_not_ready_retries,
            max_rd_atomic: READS,
            ..Default::default()
        };
        let which = Mask::IBV_QP_STATE
            | Mask::IBV_QP_SQ_PSN
            | Mask::IBV_QP_TIMEOUT
            | Mask::IBV_QP_RETRY_CNT
            | Mask::IBV_QP_RNR_RETRY
            | Mask::IBV_QP_MAX_QP_RD_ATOMIC;
        (attributes, which)
    }
}

/// RDMA reads and atomic operations under way at once. Nothing here posts any; 1 is the least that all devices take.
const READS: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ibv_mtu;
    use std::net::Ipv4Addr;

    fn connection() -> Connection {
        let destination = Gid::from(Ipv4Addr::new(10, 7, 0, 2));
        Connection::new(1, destination, Mtu::Mtu1024, QpNumber(17), Psn::new(0x1_000_005), Psn::new(9))
    }

    #[test]
    fn both_steps_together_name_every_attribute_of_the_connection() {
        let connection = Connection { traffic_class: 104, service_level: 3, flow_label: 77, ..connection() };
        let (receiving, which) = connection.receiving(2);
        assert_eq!((receiving.path_mtu, receiving.dest_qp_num), (ibv_mtu::IBV_MTU_1024, 17));
        assert_eq!((receiving.rq_psn, receiving.min_rnr_timer), (5, 12));
        let route = receiving.ah_attr;
        assert_eq!((route.is_global, route.port_num, route.sl, route.dlid), (1, 2, 3, 0));
        assert_eq!((route.grh.sgid_index, route.grh.hop_limit), (1, 64));
        assert_eq!((route.grh.traffic_class, route.grh.flow_label), (104, 77));
        // SAFETY: both members of the union are 16 plain bytes.
        assert_eq!(unsafe { route.grh.dgid.raw }, connection.destination.0);
        let (sending, more) = connection.sending();
        assert_eq!((sending.sq_psn, sending.timeout), (9, 18));
        assert_eq!((sending.retry_cnt, sending.rnr_retry), (7, 6));
        // The kernel's table for reliable connections (ib_modify_qp_is_ok) demands exactly these.
        assert_eq!((which.0, more.0), (0x12_9181 | 1 << 15, 0x1_2e01));
    }

    #[test]
    fn numbers_beyond_their_bits_are_refused_by_name() {
        connection().check().unwrap();
        for (wrong, word) in [
            (Connection { service_level: 16, ..connection() }, "service level"),
            (Connection { flow_label: 1 << 20, ..connection() }, "flow label"),
            (Connection { peer: QpNumber(1 << 24), ..connection() }, "queue pair number"),
            (Connection { retries: 8, ..connection() }, "retries is 8"),
            (Connection { receiver_not_ready_retries: 8, ..connection() }, "receiver-not-ready retries"),
            (Connection { receiver_not_ready_delay: 32, ..connection() }, "delay"),
        ] {
            let message = wrong.check().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn an_acknowledgement_is_never_waited_for_without_end() {
        assert_eq!(AckTimeout::new(0), None);
        assert_eq!(AckTimeout::new(32), None);
        assert_eq!(AckTimeout::new(14).unwrap().duration().as_millis(), 67);
        assert_eq!(AckTimeout::new(31).unwrap().duration().as_secs(), 8796);
    }
}
