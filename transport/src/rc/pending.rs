//! Making a link: queue pairs first, then the exchange of greetings, then the connection.

use std::net::TcpStream;
use std::sync::Arc;

use rccl_verbs::GidType;

use super::RcLink;
use super::block::Block;
use super::error::RcError;
use super::hello::{Hello, RailHello};
use super::options::Options;
use super::pairs::Pairs;
use super::rails::{Address, Rails};

/// The queue pairs and the block of this end of a link, made and not yet connected.
pub struct Pending {
    pub(super) rails: Arc<Rails>,
    pub(super) chosen: Vec<Address>,
    pub(super) options: Options,
    pub(super) block: Block,
    pub(super) pairs: Pairs,
}

impl Pending {
    /// Makes [`Options::queue_pairs`] queue pairs on each of the process's addresses that `chosen` names by their place
    /// in [`Rails::describe`], a rail of the link each. The k-th here will talk to the k-th of the peer's choice, so both choose as many.
    /// Registers [`Options::block_bytes`] of memory. Takes milliseconds.
    ///
    /// # Errors
    /// [`RcError::Options`] for settings out of range or a rail that there is not; [`RcError::Verbs`] if the process may
    /// not lock so much memory, or the device has no more queue pairs; [`RcError::Memory`].
    pub fn new(rails: &Arc<Rails>, chosen: &[usize], options: &Options) -> Result<Pending, RcError> {
        options.check(chosen.len()).map_err(|what| RcError::Options { what })?;
        let find = |&at: &usize| {
            let what = || format!("address {at} of {} was chosen", rails.addresses.len());
            rails.addresses.get(at).cloned().ok_or_else(|| RcError::Options { what: what() })
        };
        let chosen: Vec<Address> = chosen.iter().map(find).collect::<Result<_, _>>()?;
        let block = Block::new(options, chosen.iter().map(|address| &rails.of(address).domain))?;
        let places: Vec<usize> = (0..chosen.len()).collect();
        let pairs = Pairs::new(rails, &chosen, &places, options)?;
        Ok(Pending { rails: Arc::clone(rails), chosen, options: *options, block, pairs })
    }

    /// What the peer needs to know. To be passed over an authenticated connection.
    pub fn hello(&self) -> Hello {
        greeting(&self.rails, &self.chosen, &self.options, &self.block, &self.pairs)
    }

    /// Connects the queue pairs to those of the peer that has sent this greeting. Does not wait for the peer, but looking
    /// up the way to it can take a second.
    ///
    /// # Errors
    /// [`RcError::Greeting`] if the two ends do not fit: other settings, another number of rails, other GID types;
    /// [`RcError::Verbs`] if the peer's address cannot be resolved.
    pub fn connect(mut self, peer: &Hello) -> Result<Connected, RcError> {
        self.compare(peer).map_err(|what| RcError::Greeting { what })?;
        self.pairs.connect(&self.rails, &self.chosen, peer, &self.options)?;
        Ok(Connected { pending: self, peer: peer.clone() })
    }

    fn compare(&self, peer: &Hello) -> Result<(), String> {
        let own = self.hello();
        let same = |what: &str, own: u64, theirs: u64| {
            if own == theirs {
                return Ok(());
            }
            Err(format!("{what}: {theirs} there, {own} here; set both ends alike"))
        };
        same("rails", own.rails.len() as u64, peer.rails.len() as u64)?;
        same("queue pairs", own.pairs.len() as u64, peer.pairs.len() as u64)?;
        same("eager limit", own.eager.into(), peer.eager.into())?;
        same("slots", own.slots.into(), peer.slots.into())?;
        same("bytes of a slot", own.slot.into(), peer.slot.into())?;
        for (k, (ours, theirs)) in own.rails.iter().zip(&peer.rails).enumerate() {
            if ours.kind != theirs.kind {
                return Err(format!(
                    "GIDs of rail {k} are of different types: {} there, {} here; choose GIDs of one type",
                    theirs.gid, ours.gid
                ));
            }
        }
        Ok(())
    }
}

/// The connected queue pairs of this end of a link. Nothing has been sent over them yet, so this may be dropped when the
/// peer could not connect its own.
pub struct Connected {
    pending: Pending,
    peer: Hello,
}

impl Connected {
    /// The link. `side` is the connection over which both ends met: nothing may be unread in it, it is made non-blocking,
    /// and stays open as long as the link, because its end is how the end of the peer is noticed. Does not block.
    ///
    /// # Errors
    /// [`RcError::Io`] if the side socket is closed; [`RcError::Options`] if a port takes less than a slot at a time.
    pub fn over(self, side: TcpStream) -> Result<RcLink, RcError> {
        side.set_nonblocking(true)
            .and_then(|()| side.set_nodelay(true))
            .map_err(|source| RcError::Io { during: "setting up the side socket", source })?;
        RcLink::new(self.pending, &self.peer, side)
    }
}

/// What a peer needs to know to connect to `pairs`.
pub(super) fn greeting(
    rails: &Rails,
    chosen: &[Address],
    options: &Options,
    block: &Block,
    pairs: &Pairs,
) -> Hello {
    let rail = |place: usize| {
        let Address { gid, .. } = &chosen[place];
        let port = &rails.of(&chosen[place]).port;
        RailHello {
            gid: gid.gid,
            lid: port.lid,
            mtu: port.active_mtu,
            kind: number(gid.kind),
            place: place as u16,
            key: block.region(place).remote_key().0,
            longest: port.max_message,
        }
    };
    Hello {
        eager: options.eager as u32,
        slots: options.slots as u32,
        slot: options.slot as u32,
        address: block.address(),
        rails: pairs.places().map(rail).collect(),
        pairs: pairs.hello(),
    }
}

/// As in `enum ibv_gid_type`.
fn number(kind: GidType) -> u16 {
    match kind {
        GidType::InfiniBand => 0,
        GidType::RoceV1 => 1,
        GidType::RoceV2 => 2,
        GidType::Other(number) => number as u16,
        _ => u16::MAX,
    }
}
