//! In which order rings and trees visit the ranks.

use crate::layout::Layout;
use crate::program::Rank;

/// The ranks host by host, so that neighbours share a host wherever they can, and with `root` first if there is one.
///
/// Within a host they come as the layout says. Where it says nothing, this is the identity on one host and wherever ranks
/// were dealt to hosts in blocks.
pub(super) struct Order {
    /// The rank at each place.
    pub ranks: Vec<Rank>,
    /// The place of each rank.
    places: Vec<u32>,
}

impl Order {
    pub(super) fn by_host(layout: &Layout) -> Order {
        let ranks = layout.host_by_host();
        let mut order = Order { places: vec![0; ranks.len()], ranks };
        order.note_places();
        order
    }

    pub(super) fn from_root(layout: &Layout, root: Rank) -> Order {
        let mut order = Order::by_host(layout);
        let place = order.place(root);
        order.ranks.rotate_left(place as usize);
        order.note_places();
        order
    }

    fn note_places(&mut self) {
        for (place, &rank) in (0..).zip(&self.ranks) {
            self.places[rank as usize] = place;
        }
    }

    /// The place of `rank`.
    pub(super) fn place(&self, rank: Rank) -> u32 {
        self.places[rank as usize]
    }
}
