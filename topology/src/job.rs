//! A job: the hosts that its ranks run on, and the networks that join them.
//!
//! One rank of each host tells what of it leads to others ([`Attachment`]), which is little however large the host is; the
//! rest is computed from that alone, so every rank that has all words computes the same.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::choose::Choice;
use crate::gid::{Gid, Scope};
use crate::host::Host;
use crate::lldp::Neighbour;
use crate::prefix::Prefix;

/// An address by which a host can be reached, and what has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The interface, "eth0", or the RDMA port, "mlx5_0 port 1".
    pub name: String,
    /// Of an RDMA port: which of its host's rails it is ([`Rail::number`](crate::Rail::number)).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rail: Option<u16>,
    /// The address.
    pub ip: IpAddr,
    /// The subnet that it is in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subnet: Option<Prefix>,
    /// Mbit/s.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub speed: Option<u32>,
    /// The switches that its carriers are plugged into, by their names.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub switches: Vec<String>,
}

impl Attachment {
    /// Those of a host: addresses of interfaces that are up and lead outside, and the best address of each rail that was
    /// chosen. Link-local ones are left out.
    pub fn of(host: &Host, choice: &Choice, neighbours: &[Neighbour]) -> Vec<Attachment> {
        let leads_out = |interface: &str| {
            let known = host.interface(interface);
            known.is_some_and(|known| !known.is_down()) && !host.stays_inside(interface)
        };
        let usable = |ip: IpAddr| !matches!(Gid::from(ip).scope(), Scope::LinkLocal | Scope::None);
        let addresses =
            host.network.addresses.iter().filter(|one| usable(one.ip) && leads_out(&one.interface));
        let interfaces = addresses.map(|address| Attachment {
            name: address.interface.clone(),
            rail: None,
            ip: address.ip,
            subnet: host.subnet(&address.interface, address.ip),
            speed: host.speed(&address.interface),
            switches: switches(host, &address.interface, neighbours),
        });
        let rails = choice.rails.iter().filter_map(|rail| {
            let best = rail.addresses.first()?;
            let interface = best.interface.as_deref();
            Some(Attachment {
                name: format!("{} port {}", rail.device, rail.port),
                rail: Some(rail.number),
                ip: best.gid.ip(),
                subnet: best.subnet,
                speed: rail.rate.map(|rate| (rate * 1000.0) as u32),
                switches: interface.map_or_else(Vec::new, |name| switches(host, name, neighbours)),
            })
        });
        interfaces.chain(rails).collect()
    }
}

fn switches(host: &Host, interface: &str, neighbours: &[Neighbour]) -> Vec<String> {
    let carriers = host.carriers(interface);
    let beside = |neighbour: &&Neighbour| carriers.iter().any(|carrier| carrier.name == neighbour.interface);
    let names =
        neighbours.iter().filter(beside).filter_map(|one| one.system.as_ref().or(one.chassis.as_ref()));
    let mut switches: Vec<String> = names.cloned().collect();
    switches.sort();
    switches.dedup();
    switches
}

/// A host of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHost {
    /// Its name.
    pub name: String,
    /// The ranks on it, in order.
    pub ranks: Vec<u32>,
    /// How it can be reached.
    pub attachments: Vec<Attachment>,
}

/// An attachment of a host of the job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct End {
    /// Which of [`Job::hosts`].
    pub host: usize,
    /// [`Attachment::name`].
    pub name: String,
}

/// A subnet that several hosts are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subnet {
    /// Its addresses.
    pub prefix: Prefix,
    /// What is in it: by host, interfaces before RDMA ports.
    pub ends: Vec<End>,
}

/// The ports of one number on all hosts, which a job that is aligned to rails joins with each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RailOfJob {
    /// The number.
    pub number: u16,
    /// Its ports, by host.
    pub ends: Vec<End>,
    /// The subnets that they are in: one where each rail has its own.
    pub subnets: Vec<Prefix>,
}

/// The hosts of a job, and what joins them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Job {
    /// In the order of their first ranks.
    pub hosts: Vec<JobHost>,
    /// Those of several hosts, in the order in which the hosts name them.
    pub subnets: Vec<Subnet>,
    /// In the order of their numbers.
    pub rails: Vec<RailOfJob>,
    /// Addresses that several hosts have, as those of container bridges: they lead to none of them.
    pub shared: Vec<IpAddr>,
}

impl Job {
    /// What joins these hosts.
    pub fn new(mut hosts: Vec<JobHost>) -> Job {
        hosts.sort_by_key(|host| host.ranks.first().copied());
        let mut job = Job { hosts, ..Job::default() };
        job.shared = job.addresses_of_several();
        let mut subnets: Vec<Subnet> = Vec::new();
        let mut rails: Vec<RailOfJob> = Vec::new();
        for (host, attachment) in job.attachments() {
            if job.shared.contains(&attachment.ip) {
                continue;
            }
            let end = End { host, name: attachment.name.clone() };
            if let Some(prefix) = attachment.subnet {
                match subnets.iter_mut().find(|subnet| subnet.prefix == prefix) {
                    Some(subnet) => subnet.ends.push(end.clone()),
                    None => subnets.push(Subnet { prefix, ends: vec![end.clone()] }),
                }
            }
            let Some(number) = attachment.rail else { continue };
            let place = rails.iter().position(|rail| rail.number == number).unwrap_or_else(|| {
                rails.push(RailOfJob { number, ends: Vec::new(), subnets: Vec::new() });
                rails.len() - 1
            });
            rails[place].ends.push(end);
            let known = &mut rails[place].subnets;
            known.extend(attachment.subnet.filter(|subnet| !known.contains(subnet)));
        }
        subnets.retain(|subnet| subnet.ends.iter().any(|end| end.host != subnet.ends[0].host));
        rails.sort_by_key(|rail| rail.number);
        Job { subnets, rails, ..job }
    }

    fn attachments(&self) -> impl Iterator<Item = (usize, &Attachment)> {
        let hosts = self.hosts.iter().enumerate();
        hosts.flat_map(|(host, one)| one.attachments.iter().map(move |attachment| (host, attachment)))
    }

    fn addresses_of_several(&self) -> Vec<IpAddr> {
        let mut all: Vec<(IpAddr, usize)> = self.attachments().map(|(host, one)| (one.ip, host)).collect();
        all.sort_unstable();
        // An RDMA port has the address of its interface.
        all.dedup();
        let mut shared: Vec<IpAddr> =
            all.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].0).collect();
        shared.dedup();
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Interface;
    use crate::network::{Address, Network};

    fn attachment(name: &str, rail: Option<u16>, address: &str) -> Attachment {
        let (ip, length) = address.split_once('/').unwrap();
        let ip = ip.parse().unwrap();
        let subnet = Prefix::new(ip, length.parse().unwrap());
        Attachment { name: name.into(), rail, ip, subnet, speed: None, switches: Vec::new() }
    }

    fn host(name: &str, ranks: &[u32], attachments: Vec<Attachment>) -> JobHost {
        JobHost { name: name.into(), ranks: ranks.to_vec(), attachments }
    }

    fn ends(ends: &[End]) -> Vec<(usize, &str)> {
        ends.iter().map(|end| (end.host, end.name.as_str())).collect()
    }

    #[test]
    fn subnets_join_hosts_and_rails_join_ports() {
        let second = host(
            "b",
            &[2, 3],
            vec![
                attachment("eth0", None, "10.7.0.2/24"),
                attachment("br-c", None, "172.18.0.1/16"),
                attachment("mlx5_0 port 1", Some(0), "10.1.0.2/24"),
                attachment("mlx5_1 port 1", Some(1), "10.2.0.2/24"),
            ],
        );
        let first = host(
            "a",
            &[0, 1],
            vec![
                attachment("br-c", None, "172.18.0.1/16"),
                attachment("eth0", None, "10.7.0.1/24"),
                attachment("eth1", None, "10.99.0.1/24"),
                attachment("mlx5_0 port 1", Some(0), "10.1.0.1/24"),
                attachment("mlx5_1 port 1", Some(1), "10.3.0.1/24"),
            ],
        );
        let job = Job::new(vec![second.clone(), first.clone()]);
        assert_eq!(job, Job::new(vec![first, second]), "the order of the words does not matter");
        assert_eq!(job.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let subnets: Vec<(String, _)> =
            job.subnets.iter().map(|subnet| (subnet.prefix.to_string(), ends(&subnet.ends))).collect();
        let both = |name| vec![(0, name), (1, name)];
        assert_eq!(
            subnets,
            [("10.7.0.0/24".to_owned(), both("eth0")), ("10.1.0.0/24".to_owned(), both("mlx5_0 port 1"))]
        );
        assert_eq!(job.shared, ["172.18.0.1".parse::<IpAddr>().unwrap()]);
        let rails: Vec<(u16, _, usize)> =
            job.rails.iter().map(|rail| (rail.number, ends(&rail.ends), rail.subnets.len())).collect();
        assert_eq!(rails, [(0, both("mlx5_0 port 1"), 1), (1, both("mlx5_1 port 1"), 2)]);
    }

    #[test]
    fn a_host_tells_what_leads_to_others() {
        let interface = |name: &str, state: &str, lower: &[&str], kind: Option<&str>| Interface {
            name: name.into(),
            state: Some(state.into()),
            lower: lower.iter().map(|&name| name.to_owned()).collect(),
            kind: kind.map(str::to_owned),
            speed: Some(25_000),
            ..Interface::default()
        };
        let address = |interface: &str, ip: &str| Address {
            interface: interface.into(),
            ip: ip.parse().unwrap(),
            length: 24,
        };
        let host = Host {
            interfaces: vec![
                interface("eth0", "up", &[], None),
                interface("eth0.7", "up", &["eth0"], Some("vlan")),
                interface("eth1", "down", &[], None),
                interface("docker0", "up", &[], Some("bridge")),
                interface("lo", "unknown", &[], None),
            ],
            network: Network {
                addresses: vec![
                    address("lo", "127.0.0.1"),
                    address("eth0", "fe80::1"),
                    address("eth0.7", "10.7.0.1"),
                    address("eth1", "10.8.0.1"),
                    address("docker0", "172.17.0.1"),
                ],
                ..Network::default()
            },
            ..Host::default()
        };
        let neighbour =
            Neighbour { interface: "eth0".into(), system: Some("leaf1".into()), chassis: None, port: None };
        let told = Attachment::of(&host, &Choice::default(), &[neighbour]);
        let expected = Attachment {
            speed: Some(25_000),
            switches: vec!["leaf1".into()],
            ..attachment("eth0.7", None, "10.7.0.1/24")
        };
        assert_eq!(told, [expected]);
    }
}
