//! What is wrong between hosts, as a pure function of what they told.

use super::rounds::{PairReport, RailReport};
use super::{Member, Speaker};
use crate::doctor::finding::{Finding, Severity};
use std::collections::{BTreeMap, BTreeSet};

/// Everything worth saying that no single report says, the worst first.
pub fn compare(members: &[Member], speakers: &[Speaker], pairs: &[PairReport]) -> Vec<Finding> {
    let mut findings = Vec::new();
    differences(speakers, &mut findings);
    shared_addresses(members, speakers, &mut findings);
    unequal_rails(speakers, &mut findings);
    for pair in pairs {
        unpaired(pair, speakers, &mut findings);
        for rail in &pair.rails {
            findings.extend(failure(pair, rail));
            findings.extend(packet_sizes(pair, rail));
        }
    }
    findings.extend(of_silent_ranks(members, speakers));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Findings of ranks that do not speak, and that those who speak for their host do not have.
fn of_silent_ranks(members: &[Member], speakers: &[Speaker]) -> Vec<Finding> {
    let speaks = |rank: u32| speakers.iter().any(|speaker| speaker.rank == rank);
    let known = |member: &Member, finding: &Finding| {
        let of_host = |other: &&Member| other.identity == member.identity && other.rank < member.rank;
        // Times and counters differ; what it is about does not.
        members.iter().filter(of_host).flat_map(|other| &other.findings).any(|other| {
            (&other.code, &other.subject, other.severity)
                == (&finding.code, &finding.subject, finding.severity)
        })
    };
    let first = members.first().map(|member| member.rank);
    let one_host = members.iter().all(|member| member.identity == members[0].identity);
    let silent =
        members.iter().filter(|member| !speaks(member.rank) || one_host && Some(member.rank) != first);
    silent
        .flat_map(|member| {
            let own = member.findings.iter().filter(|finding| !known(member, finding)).cloned();
            own.map(|finding| Finding {
                subject: format!("rank {}, {}", member.rank, finding.subject),
                ..finding
            })
        })
        .collect()
}

/// Versions and settings that are not the same everywhere.
fn differences(speakers: &[Speaker], findings: &mut Vec<Finding>) {
    let names: BTreeSet<&String> =
        speakers.iter().flat_map(|speaker| speaker.report.settings.keys()).collect();
    let mut compare = |what: &str, severity, value: &dyn Fn(&Speaker) -> String, meaning: &str| {
        let mut by_value: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for speaker in speakers {
            by_value.entry(value(speaker)).or_default().push(speaker.rank);
        }
        if by_value.len() > 1 {
            let list = by_value.iter().map(|(value, ranks)| format!("{value} on {}", rank_list(ranks)));
            findings.push(Finding::new(
                severity,
                "difference",
                what,
                list.collect::<Vec<_>>().join("; "),
                meaning,
                "make it the same on all hosts",
            ));
        }
    };
    compare(
        "version of rccl",
        Severity::Warning,
        &|speaker| speaker.report.version.clone(),
        "ranks may not understand each other",
    );
    for name in names {
        let value = |speaker: &Speaker| {
            speaker.report.settings.get(name).cloned().unwrap_or_else(|| "default".into())
        };
        // Names of devices may differ on equal hosts.
        let severity = if name == "RCCL_IB_HCA" { Severity::Note } else { Severity::Warning };
        compare(name, severity, &value, "the two ends of a connection then want different things");
    }
    let classes = |speaker: &Speaker| {
        let ports = speaker.report.devices.iter().flat_map(|device| &device.ports);
        let classes: BTreeSet<u8> =
            ports.filter(|port| port.rail.is_some()).map(|port| port.traffic_class.unwrap_or(0)).collect();
        classes.iter().map(u8::to_string).collect::<Vec<_>>().join(" and ")
    };
    let with_rails: Vec<&Speaker> = speakers.iter().filter(|speaker| !speaker.adverts.is_empty()).collect();
    if with_rails.len() == speakers.len() {
        let meaning = "the network treats the two directions of a connection differently";
        compare("traffic class", Severity::Warning, &classes, meaning);
    }
}

/// Addresses that two hosts both claim.
fn shared_addresses(members: &[Member], speakers: &[Speaker], findings: &mut Vec<Finding>) {
    let identity =
        |rank: u32| members.iter().find(|member| member.rank == rank).map(|member| &member.identity);
    let mut owners: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for speaker in speakers {
        let mut addresses: Vec<String> =
            speaker.adverts.iter().map(|advert| advert.gid.to_string()).collect();
        addresses.sort();
        addresses.dedup();
        for address in addresses {
            owners.entry(address).or_default().push(speaker.rank);
        }
    }
    for (address, ranks) in owners {
        let hosts: BTreeSet<_> = ranks.iter().map(|&rank| identity(rank)).collect();
        if hosts.len() > 1 {
            findings.push(Finding::new(
                Severity::Error,
                "shared-address",
                address.as_str(),
                format!("the hosts of {} have the same address", rank_list(&ranks)),
                "packets to it stay on their own host",
                format!("another address on each host; or RCCL_IB_ADDR_RANGE or RCCL_IB_HCA that leave {address} out"),
            ));
        }
    }
}

fn unequal_rails(speakers: &[Speaker], findings: &mut Vec<Finding>) {
    let count = |speaker: &Speaker| {
        let rails: BTreeSet<u16> = speaker.adverts.iter().map(|advert| advert.rail).collect();
        rails.len()
    };
    let (least, most) = (speakers.iter().map(count).min(), speakers.iter().map(count).max());
    if let (Some(least @ 1..), Some(most)) = (least, most)
        && least != most
    {
        let rails = |speaker: &Speaker| {
            format!("rank {} ({}): {}", speaker.rank, speaker.report.host, count(speaker))
        };
        findings.push(Finding::new(
            Severity::Warning,
            "unequal-rails",
            "hosts",
            format!(
                "the hosts have different numbers of usable ports: {}",
                speakers.iter().map(rails).collect::<Vec<_>>().join(", ")
            ),
            "between two hosts the lesser number is used",
            "see the reports of those that have fewer",
        ));
    }
}

fn unpaired(pair: &PairReport, speakers: &[Speaker], findings: &mut Vec<Finding>) {
    let Some(why) = &pair.unpaired else { return };
    let [one, other] = pair.ranks.map(|rank| speakers.iter().find(|speaker| speaker.rank == rank));
    let (Some(one), Some(other)) = (one, other) else { return };
    let demanded = one.report.net == "verbs" || other.report.net == "verbs";
    let without = one.adverts.is_empty() || other.adverts.is_empty();
    let (severity, remedy) = match (demanded, without) {
        (true, _) => (Severity::Error, "see each host's report"),
        // Why there is none is in its report.
        (false, true) => (Severity::Note, ""),
        (false, false) => (
            Severity::Error,
            "ports that are to talk to each other need addresses of one subnet, or routes between their subnets through \
             their own interfaces",
        ),
    };
    let meaning = if demanded { "RCCL_NET=verbs demands RDMA, so joining fails" } else { "the two use TCP" };
    findings.push(Finding::new(severity, "unpaired", subject(pair), why.as_str(), meaning, remedy));
}

fn failure(pair: &PairReport, rail: &RailReport) -> Option<Finding> {
    let (error, step) = (rail.error.as_ref()?, rail.step.as_deref()?);
    let (meaning, remedy) = match step {
        "short" => (
            "TCP between the two works, since they have joined by it; so packets of RoCE are lost on the way",
            "allow UDP port 4791 in firewalls and security groups on both hosts and between them; check VLAN and subnet of both \
             addresses, that both GIDs are RoCE v2, and `ping` from one address to the other",
        ),
        "long" => (
            "a short packet came through and a full one did not: something between the two takes no packets of this size",
            "the same MTU on both interfaces and jumbo frames on the switches between them; `ping -M do -s 4100` shows it",
        ),
        "connect" => (
            "no connection could be set up",
            "see the reason; `ping` from one address to the other tells whether the hosts find each other at all",
        ),
        _ => ("the device refused the write", "see the reason; `dmesg | tail` may tell more"),
    };
    let seen = format!("{} - {}: {error}", rail.ends[0], rail.ends[1]);
    Some(Finding::new(Severity::Error, &format!("write-{step}"), subject(pair), seen, meaning, remedy))
}

fn packet_sizes(pair: &PairReport, rail: &RailReport) -> Option<Finding> {
    let [Some(one), Some(other)] = rail.mtu else { return None };
    (one != other).then(|| {
        Finding::new(
            Severity::Warning,
            "mtu-mismatch",
            subject(pair),
            format!("{} has packets of {one} bytes, {} of {other}", rail.ends[0], rail.ends[1]),
            "the lesser is used, and interfaces of different MTU on one network lose what is too large for one of them",
            "the same MTU on both network interfaces, 4200 or more for packets of 4096 bytes",
        )
    })
}

fn subject(pair: &PairReport) -> String {
    format!("rank {} ({}) and rank {} ({})", pair.ranks[0], pair.hosts[0], pair.ranks[1], pair.hosts[1])
}

/// `rank 3`, `ranks 0, 2, 5`, and of many the first ones.
fn rank_list(ranks: &[u32]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = ranks.iter().take(SHOWN).map(u32::to_string).collect();
    let more = if ranks.len() > SHOWN { format!(" and {} more", ranks.len() - SHOWN) } else { String::new() };
    format!("{} {}{more}", if ranks.len() == 1 { "rank" } else { "ranks" }, shown.join(", "))
}
