//! What the hosts of a job tell of their fabric: by which ports they reach each other, and which leaf switch each of these
//! hangs on.

use serde::Serialize;

use super::{Fabric, rails};
use crate::job::{Attachment, Job, JobHost};
use crate::system::{Net, Pci, System};

/// By what leaves were told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The names of the switches, which they tell by LLDP.
    Switches,
    /// The subnets: where each leaf routes, it has its own. Two ports of one subnet may still hang on two leaves.
    Subnets,
}

/// Takes from the systems of a job's hosts, which come in the order of [`Job::hosts`], the ports that do not lead to its
/// other hosts: where every host has rails, what is no rail; else what has no address in a subnet of several hosts, of
/// those hosts that have one there. Addresses that several hosts have lead nowhere.
pub fn keep_ports(job: &Job, hosts: &mut [System]) {
    for (host, system) in job.hosts.iter().zip(hosts) {
        let used = used(job, host);
        let is_used = |net: &Net| used.iter().any(|attachment| is_of(attachment, net));
        for cpu in &mut system.cpus {
            cpu.nics.iter_mut().for_each(|nic| nic.nets.retain(is_used));
            cpu.nics.retain(|nic| !nic.nets.is_empty());
            cpu.devices.iter_mut().for_each(|device| keep(device, &is_used));
        }
    }
}

/// The leaf of every port of the job's hosts, whose systems come in the order of [`Job::hosts`], and how that is known: by
/// switches if those of all ports are, else by subnets if there are several among the ports of one rail. `None`: hosts
/// cannot be told apart.
pub fn fabric(job: &Job, hosts: &[System]) -> Option<(Fabric, Source)> {
    let switches = |attachment: &Attachment| {
        // A bond's members may hang on two.
        Some(attachment.switches.join("\n")).filter(|names| !names.is_empty())
    };
    let subnet = |attachment: &Attachment| Some(attachment.subnet?.to_string());
    if let Some(keys) = keys(job, hosts, switches) {
        return Some((numbered(&keys), Source::Switches));
    }
    let keys = keys(job, hosts, subnet)?;
    let most = keys.iter().map(Vec::len).max().unwrap_or(0);
    let differ = |rail: usize| {
        let mut of_rail = keys.iter().filter_map(|host| host.get(rail));
        let first = of_rail.next();
        of_rail.any(|other| Some(other) != first)
    };
    (0..most).any(differ).then(|| (numbered(&keys), Source::Subnets))
}

/// What identifies the leaf of every rail of every host; `None` if one is not known.
fn keys(
    job: &Job,
    hosts: &[System],
    key: impl Fn(&Attachment) -> Option<String>,
) -> Option<Vec<Vec<String>>> {
    let of_host = |(host, system): (&JobHost, &System)| {
        let of_rail = |dev: u64| {
            let net = nets(system).into_iter().find(|net| net.dev.map(u64::from) == Some(dev))?;
            used(job, host).into_iter().filter(|attachment| is_of(attachment, net)).find_map(&key)
        };
        rails(system).into_iter().map(of_rail).collect()
    };
    job.hosts.iter().zip(hosts).map(of_host).collect()
}

/// Leaves by number, in the order in which hosts name them.
fn numbered(keys: &[Vec<String>]) -> Fabric {
    let mut known: Vec<&String> = Vec::new();
    let mut number = |key| {
        known.iter().position(|known| *known == key).unwrap_or_else(|| {
            known.push(key);
            known.len() - 1
        }) as u32
    };
    Fabric::new(keys.iter().map(|host| host.iter().map(&mut number).collect()).collect())
}

fn used<'j>(job: &Job, host: &'j JobHost) -> Vec<&'j Attachment> {
    let leads_out = |attachment: &&Attachment| !job.shared.contains(&attachment.ip);
    let all = || host.attachments.iter().filter(leads_out);
    let with_rails = |host: &JobHost| host.attachments.iter().any(|attachment| attachment.rail.is_some());
    if job.hosts.iter().all(with_rails) {
        return all().filter(|attachment| attachment.rail.is_some()).collect();
    }
    let interfaces = || all().filter(|attachment| attachment.rail.is_none());
    let is_joint =
        |attachment: &&Attachment| job.subnets.iter().any(|subnet| Some(subnet.prefix) == attachment.subnet);
    let joint: Vec<&Attachment> = interfaces().filter(is_joint).collect();
    if joint.is_empty() { interfaces().collect() } else { joint }
}

fn is_of(attachment: &Attachment, net: &Net) -> bool {
    let Some(name) = &net.name else { return false };
    match attachment.rail {
        None => attachment.name == *name,
        Some(_) => attachment.name == format!("{name} port {}", net.port.unwrap_or(1)),
    }
}

fn keep(device: &mut Pci, is_used: &impl Fn(&Net) -> bool) {
    device.nics.iter_mut().for_each(|nic| nic.nets.retain(is_used));
    device.nics.retain(|nic| !nic.nets.is_empty());
    device.devices.iter_mut().for_each(|below| keep(below, is_used));
}

fn nets(system: &System) -> Vec<&Net> {
    fn below<'s>(device: &'s Pci, nets: &mut Vec<&'s Net>) {
        nets.extend(device.nics.iter().flat_map(|nic| &nic.nets));
        device.devices.iter().for_each(|device| below(device, nets));
    }
    let mut nets: Vec<&Net> =
        system.cpus.iter().flat_map(|cpu| &cpu.nics).flat_map(|nic| &nic.nets).collect();
    system.cpus.iter().flat_map(|cpu| &cpu.devices).for_each(|device| below(device, &mut nets));
    nets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::Prefix;
    use crate::search::{Reach, Seat, graphs, job, seats_on_nodes};
    use crate::system::{Cpu, Nic};

    fn attachment(name: &str, rail: Option<u16>, address: &str, switch: &str) -> Attachment {
        let (ip, length) = address.split_once('/').unwrap();
        let ip = ip.parse().unwrap();
        Attachment {
            name: name.into(),
            rail,
            ip,
            subnet: Prefix::new(ip, length.parse().unwrap()),
            speed: None,
            switches: switch.split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// Hosts of one rank with these ports; every one also has a bridge of containers.
    fn job_of(hosts: Vec<Vec<Attachment>>) -> (Job, Vec<System>) {
        let mut systems: Vec<System> = hosts
            .iter()
            .map(|attachments| {
                let mut ports: Vec<(String, Option<u32>)> = vec![("docker0".into(), None)];
                for one in attachments {
                    match one.name.split_once(" port ") {
                        Some((device, port)) => ports.push((device.into(), port.parse().ok())),
                        None => ports.push((one.name.clone(), Some(0))),
                    }
                }
                let net = |(dev, (name, port)): (u32, (String, Option<u32>))| Net {
                    name: Some(name),
                    dev: Some(dev),
                    port,
                    ..Net::default()
                };
                let nics = vec![Nic { nets: (0..).zip(ports).map(net).collect() }];
                System { cpus: vec![Cpu { numa: Some(0), nics, ..Cpu::default() }], ..System::default() }
            })
            .collect();
        let host = |(rank, attachments): (u32, Vec<Attachment>)| JobHost {
            name: format!("host{rank}"),
            ranks: vec![rank],
            attachments,
        };
        let job = Job::new((0..).zip(hosts).map(host).collect());
        keep_ports(&job, &mut systems);
        (job, systems)
    }

    fn names(system: &System) -> Vec<&str> {
        nets(system).into_iter().filter_map(|net| net.name.as_deref()).collect()
    }

    #[test]
    fn switches_tell_leaves_apart_and_rings_pass_each_once() {
        let host = |rank: u8, leaf: &str| {
            vec![
                attachment("docker0", None, "172.17.0.1/16", ""),
                attachment("eth0", None, &format!("10.0.0.{rank}/24"), leaf),
            ]
        };
        let (job, systems) =
            job_of(vec![host(1, "leaf1"), host(2, "leaf2"), host(3, "leaf1"), host(4, "leaf2")]);
        assert!(systems.iter().all(|system| names(system) == ["eth0"]), "{systems:?}");
        let (fabric, source) = fabric(&job, &systems).unwrap();
        assert_eq!(source, Source::Switches);
        assert_eq!(fabric, Fabric::new(vec![vec![0], vec![1], vec![0], vec![1]]));

        let graphs: Vec<_> = (0..)
            .zip(&systems)
            .map(|(rank, system)| {
                let seats: Vec<Seat> =
                    seats_on_nodes(system, 1).into_iter().map(|seat| Seat { rank, ..seat }).collect();
                graphs(system, &seats, Reach::Job).unwrap()
            })
            .collect();
        let rails: Vec<Vec<u64>> = systems.iter().map(rails).collect();
        let members: Vec<job::Member<'_>> =
            graphs.iter().zip(&rails).map(|(graphs, rails)| job::Member { graphs, rails }).collect();
        let joined = job::join(&members, &fabric, |_, vertex, _| vertex.checked_sub(1)).unwrap();
        assert_eq!(joined.order, [0, 2, 1, 3]);
    }

    #[test]
    fn bonds_that_hang_on_two_switches_hang_on_a_pair() {
        let host =
            |rank: u8, leaves: &str| vec![attachment("bond0", None, &format!("10.0.0.{rank}/24"), leaves)];
        let (job, systems) = job_of(vec![host(1, "a b"), host(2, "c d"), host(3, "a b")]);
        assert_eq!(fabric(&job, &systems).unwrap().0, Fabric::new(vec![vec![0], vec![1], vec![0]]));
    }

    #[test]
    fn subnets_tell_leaves_apart_where_switches_do_not() {
        let host = |leaf: u8, rank: u8, switch: &str| {
            vec![attachment("eth0", None, &format!("10.0.{leaf}.{rank}/24"), switch)]
        };
        // One host has no lldpd.
        let (job, systems) = job_of(vec![host(1, 1, "x"), host(2, 1, ""), host(1, 2, "x"), host(2, 2, "y")]);
        let expected = Fabric::new(vec![vec![0], vec![1], vec![0], vec![1]]);
        assert_eq!(fabric(&job, &systems), Some((expected, Source::Subnets)));
        // One network for all says nothing of leaves.
        let (job, systems) = job_of(vec![host(1, 1, ""), host(1, 2, "")]);
        assert_eq!(fabric(&job, &systems), None);
    }

    #[test]
    fn rails_are_preferred_where_all_hosts_have_them() {
        let host = |rank: u8| {
            vec![
                attachment("eth0", None, &format!("10.9.0.{rank}/24"), ""),
                attachment("mlx5_0 port 1", Some(0), &format!("10.0.{}.{rank}/24", rank / 2), ""),
                attachment("mlx5_1 port 2", Some(1), &format!("10.1.{}.{rank}/24", rank / 2), ""),
            ]
        };
        let (job, systems) = job_of((0..4).map(host).collect());
        assert_eq!(names(&systems[0]), ["mlx5_0", "mlx5_1"]);
        let (fabric, source) = fabric(&job, &systems).unwrap();
        assert_eq!(source, Source::Subnets);
        assert_eq!(fabric, Fabric::new(vec![vec![0, 1], vec![0, 1], vec![2, 3], vec![2, 3]]));
        // If one has none, all go by what they share.
        let without = vec![attachment("eth0", None, "10.9.0.9/24", "")];
        let (_, systems) = job_of(vec![host(1), without]);
        assert_eq!(names(&systems[0]), ["eth0"]);
    }
}
