//! The hosts of a job under a launcher: every rank tells all others in 8 bytes where it is, and the first of each host tells
//! rank 0 what there is, some kilobytes. So no rank's share of the exchange grows faster than ranks.

use super::lines::{Lines, short};
use super::{Subject, ThisHost};
use rccl::{Communicator, Config};
use rccl_topology::job::{Attachment, End, Job, JobHost};
use rccl_topology::system::{Cpu, Hex, System};
use rccl_topology::{choose, xml};
use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// What the first rank of a host tells.
#[derive(Serialize, Deserialize)]
struct Word {
    name: String,
    attachments: Vec<Attachment>,
    /// Its topology file.
    system: String,
}

/// The whole job, on rank 0, and nothing on the others; all of them take part.
///
/// # Errors
/// A rank was lost, or runs another version.
pub fn gather(
    communicator: &Communicator,
    config: &Config,
    file: Option<System>,
) -> rccl::Result<Option<Subject>> {
    let root = Path::new("/");
    let (own, mut identities) = (identity(root), vec![0; communicator.size() as usize]);
    communicator.all_gather_into(&[own], &mut identities)?;
    let first = identities.iter().position(|identity| *identity == own);
    let word = (first == Some(communicator.rank() as usize)).then(|| {
        let this = ThisHost::discover();
        let choice = choose(&this.host, &config.rdma_wishes());
        let system = file.unwrap_or_else(|| System::discover(root, &this.host));
        Word {
            name: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
            attachments: Attachment::of(&this.host, &choice, &this.neighbours),
            system: xml::write_system(&system),
        }
    });
    let words: Option<Vec<Option<Word>>> = crate::share::gather(communicator, &word)?;
    Ok(words.map(|words| put_together(words, &identities)))
}

/// The same for all ranks of a host, and another on each: of its kernel's boot, and its network namespace.
fn identity(root: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    crate::doctor::identity(root).hash(&mut hasher);
    hasher.finish()
}

/// From words and identities by rank.
fn put_together(words: Vec<Option<Word>>, identities: &[u64]) -> Subject {
    let mut all = System { version: Some(1), ..System::default() };
    let mut hosts = Vec::new();
    // By rank, so hosts come by their first ranks, as in the job.
    for (word, own) in words.into_iter().zip(identities) {
        let Some(word) = word else { continue };
        // What another has written of itself can be read; if not, its devices are not known.
        let system = xml::parse_system(word.system.as_bytes()).map(|parsed| parsed.value).unwrap_or_default();
        let host = Some(Hex(*own));
        all.cpus.extend(system.cpus.into_iter().map(|cpu| Cpu { host, ..cpu }));
        let ranks = (0..).zip(identities).filter(|(_, identity)| *identity == own).map(|(rank, _)| rank);
        hosts.push(JobHost { name: word.name, ranks: ranks.collect(), attachments: word.attachments });
    }
    Subject { job: Some(Job::new(hosts)), system: Some(all), ..Subject::default() }
}

/// Hosts and their ranks, and what joins them.
pub fn text(job: &Job) -> String {
    let mut text = Lines::default();
    let ranks: usize = job.hosts.iter().map(|host| host.ranks.len()).sum();
    text.line(&[format!("job of {ranks} ranks on {} host{}", job.hosts.len(), plural(job.hosts.len()))]);
    text.inside(|text| {
        for (index, host) in job.hosts.iter().enumerate() {
            let ranks: Vec<usize> = host.ranks.iter().map(|&rank| rank as usize).collect();
            text.line(&[
                format!("host {index} {}", host.name),
                format!("rank{} {}", plural(ranks.len()), ranges(&ranks)),
            ]);
            text.inside(|text| host.attachments.iter().for_each(|one| attachment(text, one)));
        }
        for subnet in &job.subnets {
            text.line(&[format!("subnet {}: {}", subnet.prefix, ends(&subnet.ends))]);
        }
        for rail in &job.rails {
            let subnets: Vec<String> = rail.subnets.iter().map(ToString::to_string).collect();
            text.line(&[format!("rail {}: {}", rail.number, ends(&rail.ends)), subnets.join(" and ")]);
        }
        let shared: Vec<String> = job.shared.iter().map(ToString::to_string).collect();
        if !shared.is_empty() {
            text.line(&[format!("addresses of several hosts, which lead to none: {}", shared.join(" "))]);
        }
    });
    text.finish()
}

fn attachment(text: &mut Lines, one: &Attachment) {
    let address = one.subnet.map_or_else(String::new, |subnet| format!("/{}", subnet.length()));
    text.line(&[
        one.name.clone(),
        one.rail.map_or_else(String::new, |rail| format!("rail {rail}")),
        format!("{}{address}", one.ip),
        one.speed.map_or_else(String::new, |speed| format!("{} Gb/s", short(f64::from(speed) / 1000.0))),
        if one.switches.is_empty() { String::new() } else { format!("at {}", one.switches.join(" and ")) },
    ]);
}

/// "eth0 of hosts 0-3 and eth1 of host 4".
fn ends(ends: &[End]) -> String {
    let mut by_name: Vec<(&str, Vec<usize>)> = Vec::new();
    for end in ends {
        match by_name.iter_mut().find(|(name, _)| *name == end.name) {
            Some((_, hosts)) => hosts.push(end.host),
            None => by_name.push((&end.name, vec![end.host])),
        }
    }
    let words = by_name
        .iter()
        .map(|(name, hosts)| format!("{name} of host{} {}", plural(hosts.len()), ranges(hosts)));
    words.collect::<Vec<_>>().join(" and ")
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// "0-3,8" of numbers in order.
fn ranges(numbers: &[usize]) -> String {
    let words = numbers.chunk_by(|one, next| one + 1 == *next).map(|run| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    words.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_two_hosts_in_lines() {
        let attachment = |name: &str, rail, ip: &str, switch: &str| Attachment {
            name: name.into(),
            rail,
            ip: ip.parse().unwrap(),
            subnet: format!("{ip}/24").parse().ok(),
            speed: Some(25_000),
            switches: vec![switch.into()],
        };
        let host = |number: u8, ranks: &[u32], switch| JobHost {
            name: format!("node{number}"),
            ranks: ranks.to_vec(),
            attachments: vec![
                attachment("eth0", None, &format!("10.7.0.{number}"), switch),
                attachment("mlx5_0 port 1", Some(0), &format!("10.8.0.{number}"), switch),
                attachment("br-c", None, "172.18.0.1", switch),
            ],
        };
        let job = Job::new(vec![host(1, &[0, 1, 4], "leaf1"), host(2, &[2, 3], "leaf2")]);
        assert_eq!(
            text(&job),
            "\
job of 5 ranks on 2 hosts
  host 0 node1, ranks 0-1,4
    eth0, 10.7.0.1/24, 25 Gb/s, at leaf1
    mlx5_0 port 1, rail 0, 10.8.0.1/24, 25 Gb/s, at leaf1
    br-c, 172.18.0.1/24, 25 Gb/s, at leaf1
  host 1 node2, ranks 2-3
    eth0, 10.7.0.2/24, 25 Gb/s, at leaf2
    mlx5_0 port 1, rail 0, 10.8.0.2/24, 25 Gb/s, at leaf2
    br-c, 172.18.0.1/24, 25 Gb/s, at leaf2
  subnet 10.7.0.0/24: eth0 of hosts 0-1
  subnet 10.8.0.0/24: mlx5_0 port 1 of hosts 0-1
  rail 0: mlx5_0 port 1 of hosts 0-1, 10.8.0.0/24
  addresses of several hosts, which lead to none: 172.18.0.1
"
        );
    }
}
