//! Real writes between all pairs.
//!
//! Pairs are dealt to rounds as in a tournament, so that each rank has one partner at a time and all work at once. A
//! round of a pair: both make a queue pair for each of their rails, tell each other, connect, write a short message and
//! a long one, and tell how that went. Every wait ends.

use super::Speaker;
use crate::doctor::gather::{Gathered, manner};
use crate::doctor::write::{End, Endpoint, Failure, MEMORY, SHORT};
use crate::share::share;
use rccl::{Communicator, Config};
use rccl_topology::{Advert, Pairing, Way, pair};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Pairs beyond this many rounds are left out: up to 64 hosts are all tried with all, of more hosts each tries 64 others
/// at the most.
const MOST_ROUNDS: usize = 64;

/// Two ranks and what came of their writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairReport {
    /// The lower rank first.
    pub ranks: [u32; 2],
    pub hosts: [String; 2],
    /// The rails that they use between them; none if `unpaired`.
    pub rails: Vec<RailReport>,
    /// Why they have none in common.
    pub unpaired: Option<String>,
}

/// A rail of a pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RailReport {
    /// Device, port and address of each end.
    pub ends: [String; 2],
    /// "link", "routed" or "unknown".
    pub way: String,
    /// Bytes of payload of a packet at each end; the lesser is used.
    pub mtu: [Option<u32>; 2],
    /// Microseconds of a write of 64 KiB, from the lower rank to the higher.
    pub time_us: Option<u64>,
    /// What failed, from the end that it failed at.
    pub error: Option<String>,
    /// "connect", "short" or "long": the step that failed.
    pub step: Option<String>,
}

/// How a rank's own writes went on one rail.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Attempt {
    time_us: Option<u64>,
    /// The step and what failed.
    failed: Option<(String, String)>,
}

impl PairReport {
    /// Whether each of its rails works, and there is one.
    pub fn works(&self) -> bool {
        !self.rails.is_empty() && self.rails.iter().all(|rail| rail.error.is_none())
    }

    pub fn describe(&self, text: &mut String) {
        let [low, high] = self.ranks;
        let _ = writeln!(text, "rank {low} ({}) and rank {high} ({})", self.hosts[0], self.hosts[1]);
        if let Some(why) = &self.unpaired {
            let _ = writeln!(text, "  no RDMA: {why}");
        }
        for rail in &self.rails {
            let mtu = match rail.mtu {
                [Some(one), Some(other)] => format!("packets of {} bytes", one.min(other)),
                _ => "packets of 256 bytes".into(),
            };
            let outcome = match (&rail.error, rail.time_us) {
                (Some(error), _) => format!("FAILED: {error}"),
                (None, Some(time)) => format!("64 KiB written in {time} us"),
                (None, None) => "not tried".into(),
            };
            let way = if rail.way == "link" { "" } else { &format!(", {}", rail.way) };
            let _ = writeln!(text, "  {} - {}{way}, {mtu}: {outcome}", rail.ends[0], rail.ends[1]);
        }
    }
}

/// Who meets whom in each round; nobody twice in one. Places in a list of `count`, the lower first.
fn tournament(count: usize) -> Vec<Vec<(usize, usize)>> {
    // One stays where it is, the others go round; with an odd number one place is empty.
    let seats = count.next_multiple_of(2);
    let round = |number: usize| {
        let at = |seat: usize| if seat == 0 { 0 } else { (seat - 1 + number) % (seats - 1) + 1 };
        let meet = |seat: usize| {
            let (one, other) = (at(seat), at(seats - 1 - seat));
            (one.min(other), one.max(other))
        };
        (0..seats / 2).map(meet).filter(|(_, high)| *high < count).collect()
    };
    (0..seats.saturating_sub(1)).map(round).collect()
}

/// Writes between all pairs of those who speak; all ranks of the communicator take part in the talking. The same
/// reports on every rank, by ranks.
pub fn write_to_all(
    communicator: &Communicator,
    config: &Config,
    gathered: &Gathered,
    speakers: &[Speaker],
) -> rccl::Result<Vec<PairReport>> {
    // All ranks know the same speakers, so all leave here together.
    if speakers.iter().all(|speaker| speaker.adverts.is_empty()) {
        return Ok(Vec::new());
    }
    let place = speakers.iter().position(|speaker| speaker.rank == communicator.rank());
    let mut reports = Vec::new();
    for round in tournament(speakers.len()).into_iter().take(MOST_ROUNDS) {
        let partner = place.and_then(|place| {
            let (low, high) = *round.iter().find(|(low, high)| *low == place || *high == place)?;
            Some(if low == place { high } else { low })
        });
        let attempts = match (place, partner) {
            (Some(place), Some(partner)) => {
                one_round(communicator, config, gathered, Some((&speakers[place], &speakers[partner])))?
            }
            _ => one_round(communicator, config, gathered, None)?,
        };
        for (low, high) in round {
            reports.push(report(&speakers[low], &speakers[high], &attempts));
        }
    }
    reports.sort_by_key(|report| report.ranks);
    Ok(reports)
}

/// One round of this rank and its partner, if it has one. Every rank's attempts.
fn one_round(
    communicator: &Communicator,
    config: &Config,
    gathered: &Gathered,
    both: Option<(&Speaker, &Speaker)>,
) -> rccl::Result<Vec<Vec<Attempt>>> {
    let pairs: Vec<(Advert, Advert)> = both
        .and_then(|(me, peer)| {
            let named =
                |pairing: Pairing| (me.adverts[pairing.mine].clone(), peer.adverts[pairing.theirs].clone());
            Some(pair(&me.adverts, &peer.adverts).ok()?.into_iter().map(named).collect())
        })
        .unwrap_or_default();
    let ends: Vec<Result<End, String>> = pairs.iter().map(|(own, _)| open(config, gathered, own)).collect();
    let endpoints: Vec<Option<Endpoint>> =
        ends.iter().map(|end| end.as_ref().ok().map(End::endpoint)).collect();
    let all: Vec<Vec<Option<Endpoint>>> = share(communicator, &endpoints)?;
    let peer = both.map(|(_, peer)| peer.rank as usize);
    let theirs = |at: usize| all.get(peer?)?.get(at)?.as_ref();

    let connect = |(at, end): (usize, &Result<End, String>)| {
        let end = end.as_ref().map_err(Clone::clone)?;
        let other = theirs(at).ok_or("the other end could not make a queue pair")?;
        let (own, peer) = &pairs[at];
        let manner = manner(config, &gathered.choice, own.rail);
        end.connect(own, peer, other, manner).map_err(|error| error.to_string())
    };
    let connected: Vec<Result<(), String>> = ends.iter().enumerate().map(connect).collect();
    let all_connected: Vec<Vec<bool>> = share(communicator, &connected.iter().map(Result::is_ok).collect())?;

    let attempt = |(at, outcome): (usize, &Result<(), String>)| {
        let failed = |step: &str, why: String| Attempt { time_us: None, failed: Some((step.into(), why)) };
        if let Err(why) = outcome {
            return failed("connect", why.clone());
        }
        let there = peer.and_then(|peer| all_connected.get(peer)?.get(at).copied()).unwrap_or(false);
        let (Ok(end), Some(other), true) = (&ends[at], theirs(at), there) else {
            return Attempt { time_us: None, failed: None }; // the other end tells why
        };
        if let Err(failure) = end.write(SHORT, other) {
            return failed("short", failure.to_string());
        }
        match end.write(MEMORY, other) {
            Ok(time) => Attempt { time_us: u64::try_from(time.as_micros()).ok(), failed: None },
            Err(Failure::Silence(why)) => failed("long", why),
            Err(Failure::Other(why)) => failed("write", why),
        }
    };
    // Rails are tried at once: each may have to wait for an acknowledgement that does not come.
    let attempts: Vec<Attempt> = std::thread::scope(|scope| {
        let attempt = &attempt;
        let started: Vec<_> =
            connected.iter().enumerate().map(|rail| scope.spawn(move || attempt(rail))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Attempt>| {
            thread.join().unwrap_or(Attempt { time_us: None, failed: None })
        };
        started.into_iter().map(join).collect()
    });
    // The queue pairs stay until both ends are through: one that is gone does not acknowledge.
    share(communicator, &attempts)
}

fn open(config: &Config, gathered: &Gathered, own: &Advert) -> Result<End, String> {
    let context = gathered.context(&own.device).ok_or_else(|| {
        let device = gathered.facts.devices.iter().find(|device| device.name == own.device);
        device
            .and_then(|device| device.error.clone())
            .unwrap_or_else(|| format!("{} is not open", own.device))
    })?;
    End::new(context, own.port, manner(config, &gathered.choice, own.rail)).map_err(|error| error.to_string())
}

/// What both ends' attempts come to.
fn report(low: &Speaker, high: &Speaker, attempts: &[Vec<Attempt>]) -> PairReport {
    let ranks = [low.rank, high.rank];
    let hosts = [low.report.host.clone(), high.report.host.clone()];
    let pairings = match pair(&low.adverts, &high.adverts) {
        Ok(pairings) => pairings,
        Err(why) => {
            let [mine, theirs] = ranks.map(|rank| format!("rank {rank}'s host"));
            let unpaired = Some(why.between(&mine, &theirs));
            return PairReport { ranks, hosts, rails: Vec::new(), unpaired };
        }
    };
    let rail = |(at, pairing): (usize, &Pairing)| {
        let (one, other) = (&low.adverts[pairing.mine], &high.adverts[pairing.theirs]);
        let attempt = |rank: u32| attempts.get(rank as usize).and_then(|of_rank| of_rank.get(at));
        let failed = ranks.iter().find_map(|&rank| {
            let (step, why) = attempt(rank)?.failed.clone()?;
            Some((step, format!("at rank {rank}: {why}")))
        });
        RailReport {
            ends: [one, other].map(|end| format!("{} port {} {}", end.device, end.port, end.gid)),
            way: match pairing.way {
                Way::Link => "link",
                Way::Routed => "routed",
                Way::Unknown => "unknown",
            }
            .into(),
            mtu: [one.mtu, other.mtu],
            time_us: attempt(low.rank).and_then(|attempt| attempt.time_us),
            step: failed.as_ref().map(|(step, _)| step.clone()),
            error: failed.map(|(_, why)| why),
        }
    };
    PairReport { ranks, hosts, rails: pairings.iter().enumerate().map(rail).collect(), unpaired: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_meets_everybody_once_and_one_at_a_time() {
        for count in 0..20 {
            let rounds = tournament(count);
            assert!(rounds.len() <= count, "{count}");
            let mut met = Vec::new();
            for round in &rounds {
                let mut busy: Vec<usize> = round.iter().flat_map(|(low, high)| [*low, *high]).collect();
                busy.sort_unstable();
                busy.dedup();
                assert_eq!(busy.len(), 2 * round.len(), "{count}: {round:?}");
                met.extend_from_slice(round);
            }
            met.sort_unstable();
            let all: Vec<(usize, usize)> =
                (0..count).flat_map(|low| (low + 1..count).map(move |high| (low, high))).collect();
            assert_eq!(met, all, "{count}");
        }
    }
}
