//! How long calls would take, as the simulator says.

use crate::call::{Call, Collective};
use crate::communicator::Communicator;
use crate::engine::Message;
use crate::tuner::{Class, Decision};
use rccl_schedule::simulate::{self, Cluster, Overhead, simulate};
use rccl_schedule::{Algorithm, Collective as Schedule};
use std::time::Duration;

/// Simulating more ranks takes longer than whoever asks before a call would wait.
const MOST_RANKS: u32 = 512;

impl Communicator {
    /// How long `call` would take, as [`simulate()`] says it of the algorithm and the chunks that it takes here: on hosts of
    /// the kind that this job's are taken for ([`Class`]), whose figures are round ones, with as many ranks on each and
    /// nothing else under way. Nothing is measured or sent; other ranks need not ask. Takes as long as the simulator does: of a
    /// few ranks less than a millisecond, of hundreds of ranks and gigabytes many seconds. A message is [`Call::root`]'s and
    /// this rank's.
    ///
    /// `None` if that is not known: for the calls whose lengths only other ranks know (gather_v, scatter_v, all_to_all_v),
    /// for a root that does not exist, for more than 512 ranks, and in a forked child.
    pub fn estimate(&self, call: &Call) -> Option<Duration> {
        self.shared().born.check().ok()?;
        let (size, peer) = (self.size(), call.root.filter(|&root| root < self.size()));
        if let Collective::Send | Collective::Recv = call.collective {
            return self.message(peer?, call.bytes());
        }
        let schedule = call.collective.schedule(call.root.unwrap_or(0))?;
        if call.collective.varies() || size > MOST_RANKS || schedule.root().is_some() && peer.is_none() {
            return None;
        }
        let Decision { algorithm, chunk, .. } = self.decision(call)?;
        // As nccl-tests count them, where calls count a block.
        let counts_all = matches!(call.collective, Collective::AllGatherV | Collective::ReduceScatterV);
        let blocks = if counts_all { 1 } else { schedule.blocks(size) };
        let bytes = call.bytes().saturating_mul(blocks.into());
        let element = call.dtype.size() as u32;
        let cluster = self.model(size);
        let chunk = chunk.map_or(cluster.chunk, |chunk| chunk.bytes());
        time(
            &simulate::Call { algorithm, collective: schedule, ranks: size, bytes, element },
            &Cluster { chunk, ..cluster },
        )
    }

    /// As [`Communicator::estimate`], of messages that are under way together: those in one direction wait for each other.
    pub(crate) fn estimate_messages(&self, messages: &[Message]) -> Option<Duration> {
        let one_way = |outgoing: bool| {
            let those = messages.iter().filter(|message| message.outgoing == outgoing);
            those.map(|message| self.message(message.peer, message.count * message.dtype.size() as u64)).sum()
        };
        let (sent, received): (Option<Duration>, Option<Duration>) = (one_way(true), one_way(false));
        Some(sent?.max(received?))
    }

    fn message(&self, peer: u32, bytes: u64) -> Option<Duration> {
        let (host, _) = self.layout();
        let here = host.get(self.rank() as usize) == host.get(peer as usize);
        let cluster = Cluster { ranks_per_host: if here { 2 } else { 1 }, ..self.model(2) };
        let (algorithm, collective) = (Algorithm::Direct, Schedule::Broadcast { root: 0 });
        time(&simulate::Call { algorithm, collective, ranks: 2, bytes, element: 1 }, &cluster)
    }

    /// What the job's hosts are taken for. Of a single one only its inside counts.
    fn model(&self, ranks: u32) -> Cluster {
        let (host, on) = self.layout();
        let hosts = host.iter().max().map_or(1, |&last| last + 1);
        Class::of(on.network).unwrap_or(Class::Tcp).model(ranks, hosts)
    }
}

fn time(call: &simulate::Call, cluster: &Cluster) -> Option<Duration> {
    // Links of other lengths than the model's may send so much unasked.
    let unasked = |overhead: Overhead| Overhead { eager: overhead.eager.max(call.bytes), ..overhead };
    let outcome = simulate(call, cluster).or_else(|_| {
        let (network, local) = (unasked(cluster.network), unasked(cluster.local));
        simulate(call, &Cluster { network, local, ..cluster.clone() })
    });
    outcome.ok().map(|outcome| Duration::from_nanos(outcome.time / 1000))
}
