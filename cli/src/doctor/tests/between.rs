//! What is found between made-up hosts.

use super::super::ranks::compare::compare;
use super::super::ranks::rounds::{PairReport, RailReport};
use super::super::ranks::{Member, Speaker};
use super::{report, working};
use crate::tree::{Tree, connectx};
use rccl_topology::Wishes;

/// The host of a rank, and what it would tell.
fn told(rank: u32, tree: &Tree, settings: &[(&str, &str)]) -> (Member, Speaker) {
    let (mut facts, choice) = working(tree, &Wishes::default());
    facts.name = format!("node{rank}");
    for (name, value) in settings {
        facts.settings.insert((*name).into(), (*value).into());
    }
    let report = report(&facts, &choice);
    let member = Member {
        rank,
        host: facts.name,
        pid: 1,
        identity: format!("host {rank}"),
        findings: report.findings.clone(),
        healthy: report.healthy,
    };
    (member, Speaker { rank, report, adverts: facts.adverts })
}

fn pair(rails: Vec<RailReport>, unpaired: Option<&str>) -> PairReport {
    PairReport {
        ranks: [0, 1],
        hosts: ["node0".into(), "node1".into()],
        rails,
        unpaired: unpaired.map(str::to_owned),
    }
}

fn rail(mtu: [u32; 2], failed: Option<(&str, &str)>) -> RailReport {
    RailReport {
        ends: ["mlx5_0 port 1 10.7.0.1".into(), "mlx5_0 port 1 10.7.0.2".into()],
        way: "link".into(),
        mtu: mtu.map(Some),
        time_us: failed.is_none().then_some(25),
        step: failed.map(|(step, _)| step.into()),
        error: failed.map(|(_, why)| why.into()),
    }
}

/// Severity, code and what was seen, of what is found between two hosts.
fn found(hosts: [(Member, Speaker); 2], pairs: &[PairReport]) -> Vec<String> {
    let (members, speakers): (Vec<Member>, Vec<Speaker>) = hosts.into_iter().unzip();
    let show = |finding: super::super::finding::Finding| {
        format!("{:?} {}: {}: {}", finding.severity, finding.code, finding.subject, finding.seen)
    };
    compare(&members, &speakers, pairs).into_iter().map(show).collect()
}

fn two(one: &Tree, other: &Tree) -> [(Member, Speaker); 2] {
    [told(0, one, &[]), told(1, other, &[])]
}

#[test]
fn equal_hosts_have_nothing_to_say() {
    let hosts = two(&connectx("10.7.0.1", 9000), &connectx("10.7.0.2", 9000));
    assert_eq!(found(hosts, &[pair(vec![rail([4096, 4096], None)], None)]), [""; 0]);
}

#[test]
fn packets_of_different_sizes_are_told() {
    let hosts = two(&connectx("10.7.0.1", 1500), &connectx("10.7.0.2", 9000));
    assert_eq!(
        found(hosts, &[pair(vec![rail([1024, 4096], None)], None)]),
        [
            "Warning mtu-mismatch: rank 0 (node0) and rank 1 (node1): mlx5_0 port 1 10.7.0.1 has packets of 1024 bytes, \
             mlx5_0 port 1 10.7.0.2 of 4096"
        ]
    );
}

#[test]
fn silence_and_lost_full_packets_have_their_own_remedies() {
    let hosts = || two(&connectx("10.7.0.1", 9000), &connectx("10.7.0.2", 9000));
    for (step, remedy) in [("short", "UDP port 4791"), ("long", "jumbo frames"), ("connect", "ping")] {
        let pairs =
            [pair(vec![rail([4096, 4096], Some((step, "at rank 0: no write was acknowledged")))], None)];
        let (members, speakers): (Vec<Member>, Vec<Speaker>) = hosts().into_iter().unzip();
        let findings = compare(&members, &speakers, &pairs);
        assert_eq!(findings[0].code, format!("write-{step}"));
        assert!(findings[0].remedy.contains(remedy), "{findings:?}");
        assert!(findings[0].seen.contains("at rank 0"), "{findings:?}");
    }
}

#[test]
fn hosts_that_cannot_be_paired_are_an_error_unless_one_has_nothing() {
    let why = "no way";
    let hosts = two(&connectx("10.7.0.1", 9000), &connectx("10.8.0.2", 9000));
    let expected = "Error unpaired: rank 0 (node0) and rank 1 (node1): no way";
    assert_eq!(found(hosts, &[pair(vec![], Some(why))]), [expected]);
    let hosts = two(&connectx("10.7.0.1", 9000), &Tree::new());
    assert_eq!(found(hosts, &[pair(vec![], Some(why))]), [expected.replace("Error", "Note")]);
}

#[test]
fn settings_and_traffic_classes_that_differ_are_told() {
    let other = connectx("10.7.0.2", 9000);
    other.file("sys/class/infiniband/mlx5_0/tc/1/traffic_class", "Global tc=106");
    let hosts = [told(0, &connectx("10.7.0.1", 9000), &[("RCCL_IB_TIMEOUT", "22")]), told(1, &other, &[])];
    assert_eq!(
        found(hosts, &[]),
        [
            "Warning difference: RCCL_IB_TIMEOUT: 22 on rank 0; default on rank 1",
            "Warning difference: traffic class: 0 on rank 0; 106 on rank 1",
        ]
    );
}

#[test]
fn one_address_on_two_hosts_is_an_error() {
    let hosts = two(&connectx("10.7.0.1", 9000), &connectx("10.7.0.1", 9000));
    assert_eq!(
        found(hosts, &[]),
        ["Error shared-address: 10.7.0.1: the hosts of ranks 0, 1 have the same address"]
    );
}

#[test]
fn different_numbers_of_ports_are_told() {
    let mut more = connectx("10.7.0.2", 9000);
    more.interface("eth3", 9000, &["10.8.0.2/24"]);
    more.device("mlx5_1", &[("10.8.0.2", "v2", "eth3")]);
    assert_eq!(
        found(two(&connectx("10.7.0.1", 9000), &more), &[]),
        [
            "Warning unequal-rails: hosts: the hosts have different numbers of usable ports: rank 0 (node0): 1, \
             rank 1 (node1): 2"
        ]
    );
}

#[test]
fn a_rank_that_does_not_speak_tells_what_its_speaker_does_not_know() {
    let (member, speaker) = told(0, &connectx("10.7.0.1", 9000), &[]);
    let mut silent = Member { rank: 1, ..member.clone() };
    let mut finding = member.findings[0].clone();
    finding.code = "locked-memory".into();
    finding.subject = "process".into();
    silent.findings.push(finding);
    let (other, also) = told(2, &connectx("10.7.0.2", 9000), &[]);
    let found = compare(&[member, silent, other], &[speaker, also], &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].code.as_str(), found[0].subject.as_str()), ("locked-memory", "rank 1, process"));
}
