//! `rccl doctor` of several ranks: every rank looks at its host, one rank a host tells what it saw, and those write to
//! each other over all rails that the two hosts would use. Rank 0 prints.
//!
//! All talking goes over a communicator that uses TCP and shared memory only: so that the path beside RDMA is known to
//! work when RDMA does not. If all ranks share one host, each of them tells and writes.

pub mod compare;
pub mod rounds;

use super::finding::{Finding, any_error};
use super::report::{self, Report};
use super::{Options, answer, check, gather, text};
use crate::share::{self, share};
use rccl::{Communicator, Config};
use rccl_topology::Advert;
use serde::{Deserialize, Serialize};
use std::process::ExitCode;
use std::time::Duration;

use rounds::PairReport;

/// What every rank tells of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    pub rank: u32,
    pub host: String,
    pub pid: u32,
    /// Equal for ranks of one host.
    pub identity: String,
    pub findings: Vec<Finding>,
    pub healthy: bool,
}

/// What a rank tells that speaks for its host, or for itself where there is one host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Speaker {
    pub rank: u32,
    pub report: Report,
    pub adverts: Vec<Advert>,
}

/// Joins the ranks that a launcher started; `None` where there is no launcher, or one rank only.
pub fn join(options: &Options, config: &Config) -> rccl::Result<Option<Communicator>> {
    if options.local {
        return Ok(None);
    }
    // A rank that waits for an acknowledgement is not late.
    let mut config = config.clone();
    config.late_warn = config.late_warn.max(Duration::from_secs(120));
    share::join(&config, "doctor")
}

/// Runs as one rank of several. All ranks end with the same status.
pub fn main(options: &Options, config: &Config, communicator: &Communicator) -> ExitCode {
    match examine(options, config, communicator) {
        Ok(status) => status,
        Err(error) => {
            if crate::perf::speaks_for_all(Some(communicator.rank()), &error) {
                eprintln!("rccl doctor: {} {error}", error.code());
            }
            ExitCode::from(super::FAILURE)
        }
    }
}

fn examine(options: &Options, config: &Config, communicator: &Communicator) -> rccl::Result<ExitCode> {
    let gathered = gather::gather(config);
    let findings = check::check(&gathered.facts, &gathered.choice);
    let rank = communicator.rank();
    let me = Member {
        rank,
        host: gathered.facts.name.clone(),
        pid: gathered.facts.pid,
        identity: gathered.facts.identity.clone(),
        healthy: !any_error(&findings),
        findings: findings.clone(),
    };
    let members: Vec<Member> = share(communicator, &me)?;
    let speakers_ranks = speakers(&members);
    let speaks = speakers_ranks.contains(&rank).then(|| Speaker {
        rank,
        report: Report::new(&gathered.facts, &gathered.choice, findings),
        adverts: gathered.facts.adverts.clone(),
    });
    let speakers: Vec<Option<Speaker>> = share(communicator, &speaks)?;
    let speakers: Vec<Speaker> = speakers.into_iter().flatten().collect();
    let pairs = rounds::write_to_all(communicator, config, &gathered, &speakers)?;
    let findings = compare::compare(&members, &speakers, &pairs);
    let healthy = members.iter().all(|member| member.healthy) && !any_error(&findings);
    let mut status = if healthy { ExitCode::SUCCESS } else { ExitCode::from(super::BROKEN) };
    if rank == 0 {
        let outcome =
            Outcome { members: &members, speakers: &speakers, pairs: &pairs, findings: &findings, healthy };
        status = answer(&if options.json { outcome.json() } else { outcome.text() }, healthy);
    }
    // Nobody leaves before all has been said.
    communicator.barrier()?;
    Ok(status)
}

/// The first rank of each host; all of them where there is one host.
fn speakers(members: &[Member]) -> Vec<u32> {
    let first = |member: &&Member| {
        !members.iter().any(|other| other.rank < member.rank && other.identity == member.identity)
    };
    let firsts: Vec<u32> = members.iter().filter(first).map(|member| member.rank).collect();
    if firsts.len() > 1 { firsts } else { members.iter().map(|member| member.rank).collect() }
}

/// Everything that is printed.
struct Outcome<'a> {
    members: &'a [Member],
    speakers: &'a [Speaker],
    pairs: &'a [PairReport],
    findings: &'a [Finding],
    healthy: bool,
}

impl Outcome<'_> {
    fn verdict(&self) -> String {
        let rails =
            self.pairs.iter().flat_map(|pair| &pair.rails).filter(|rail| rail.error.is_none()).count();
        let (tried, working) = (self.pairs.len(), self.pairs.iter().filter(|pair| pair.works()).count());
        let demanded = self.speakers.iter().any(|speaker| speaker.report.net == "verbs");
        let otherwise = match demanded {
            true => "joining fails, because RCCL_NET=verbs demands it",
            false => "TCP is used there",
        };
        match working {
            0 if self.healthy => format!("There is no RDMA between these ranks: {otherwise}."),
            0 => format!("RDMA does not work between these ranks: {otherwise}."),
            _ if working < tried => {
                format!(
                    "RDMA works between {working} of {tried} pairs that were tried, and not between the \
                     others: {otherwise}."
                )
            }
            _ => {
                let but = if self.healthy { "" } else { "; but see the errors" };
                format!(
                    "RDMA works between all pairs that were tried (pairs: {tried}, rails in all: {rails}){but}."
                )
            }
        }
    }

    fn json(&self) -> String {
        let rank = |member: &Member| serde_json::json!({ "rank": member.rank, "host": member.host, "pid": member.pid });
        let ranks: Vec<serde_json::Value> = self.members.iter().map(rank).collect();
        let hosts: Vec<&Report> = self.speakers.iter().map(|speaker| &speaker.report).collect();
        report::json(self.healthy, &self.verdict(), &ranks, &hosts, self.pairs, self.findings)
    }

    fn text(&self) -> String {
        // Ranks of one host see the same, but for limits and permissions; these are among the findings.
        let one_host = self.members.iter().all(|member| member.identity == self.members[0].identity);
        let shown = if one_host { &self.speakers[..1] } else { self.speakers };
        let mut words =
            shown.iter().fold(String::new(), |words, speaker| words + &text::host(&speaker.report) + "\n");
        for pair in self.pairs {
            pair.describe(&mut words);
        }
        if !self.pairs.is_empty() {
            words.push('\n');
        }
        text::findings(&mut words, self.findings);
        words + &self.verdict() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(rank: u32, identity: &str) -> Member {
        let (host, identity) = (identity.to_owned(), identity.to_owned());
        Member { rank, host, pid: 1, identity, findings: Vec::new(), healthy: true }
    }

    #[test]
    fn the_first_rank_of_each_host_speaks() {
        let members = [member(0, "a"), member(1, "b"), member(2, "a"), member(3, "b")];
        assert_eq!(speakers(&members), [0, 1]);
        assert_eq!(speakers(&[member(0, "a"), member(1, "a")]), [0, 1]);
    }
}
