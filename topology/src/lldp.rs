//! The switches that this host's interfaces are plugged into, as lldpd knows them (IEEE 802.1AB).
//!
//! Switches tell of themselves by LLDP every half a minute, which only a process that listens all the time hears: lldpd.
//! It answers by its own command, `lldpctl`, whose format `json0` has the same shape for one and for many neighbours
//! (lldpcli(8)). Its socket speaks a format of its own version.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What an interface is plugged into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// This host's interface.
    pub interface: String,
    /// The other's name: "leaf1".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The other's identity, most often an Ethernet address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chassis: Option<String>,
    /// The port there: its name if it tells one ("Ethernet1/7", "swp7"), else its identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

impl Neighbour {
    /// Asks lldpd, by the command `lldpctl`, which has to answer within `patience`. Empty where it is not installed or not
    /// running, does not admit this user, or does not know of a neighbour.
    pub fn ask(patience: Duration) -> Vec<Neighbour> {
        // Only root has it in its path everywhere; others may run it all the same.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        Neighbour::ask_by(Command::new("lldpctl").args(["-f", "json0"]).env("PATH", path), patience)
    }

    fn ask_by(command: &mut Command, patience: Duration) -> Vec<Neighbour> {
        answer(command, patience).map(|text| Neighbour::parse(&text)).unwrap_or_default()
    }

    /// Reads what `lldpctl -f json0` prints. Empty if it is something else; neighbours that told by another protocol, such
    /// as CDP, are there too. In the order of the text, which may name an interface several times.
    pub fn parse(text: &str) -> Vec<Neighbour> {
        let answer: Answer = serde_json::from_str(text).unwrap_or_default();
        answer.lldp.into_iter().flat_map(|lldp| lldp.interface).map(Neighbour::from).collect()
    }
}

/// Longer answers are of a daemon that is not lldpd.
const LONGEST: u64 = 16 << 20;

/// What a command prints, if it ends well in that time. It is killed otherwise.
fn answer(command: &mut Command, patience: Duration) -> Option<String> {
    let deadline = Instant::now() + patience;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let (done, outcome) = std::sync::mpsc::channel();
    if let Some(output) = child.stdout.take() {
        // Reading has no deadline, so a thread does it; it ends when the pipe does. What a killed command leaves running
        // may hold the pipe, so nobody waits for the thread.
        std::thread::spawn(move || {
            let mut text = String::new();
            let read = output.take(LONGEST).read_to_string(&mut text);
            // Fails if nobody waits any more.
            let _ = done.send(read.ok().map(|_| text));
        });
    }
    let text = outcome.recv_timeout(patience).ok().flatten();
    let ended_well = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if text.is_some() && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            _ => break false,
        }
    };
    if !ended_well {
        // It may have ended meanwhile, which is as well.
        let _ = child.kill();
        let _ = child.wait();
    }
    text.filter(|_| ended_well)
}

#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default)]
    lldp: Vec<Interfaces>,
}

#[derive(Deserialize)]
struct Interfaces {
    #[serde(default)]
    interface: Vec<Interface>,
}

#[derive(Deserialize)]
struct Interface {
    name: String,
    #[serde(default)]
    chassis: Vec<Described>,
    #[serde(default)]
    port: Vec<Described>,
}

/// A chassis, or a port.
#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    id: Vec<Word>,
    #[serde(default)]
    name: Vec<Word>,
    #[serde(default)]
    descr: Vec<Word>,
}

#[derive(Deserialize)]
struct Word {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    value: String,
}

impl From<Interface> for Neighbour {
    fn from(interface: Interface) -> Neighbour {
        // Others tell what is on the wire, and may tell anything; a line stays one.
        let clean =
            |word: &Word| Some(word.value.replace(char::is_control, " ")).filter(|value| !value.is_empty());
        let first = |words: &[Word]| words.first().and_then(clean);
        let (chassis, port) = (interface.chassis.first(), interface.port.first());
        // Linux tells a port's Ethernet address as its identity and its name as its description; switches tell their name
        // for it as identity, and as description what an administrator wrote.
        let by_name = |port: &&Described| port.id.first().is_some_and(|id| id.kind != "mac");
        let port_name = match port.filter(by_name) {
            Some(port) => first(&port.id),
            None => port.and_then(|port| first(&port.descr).or_else(|| first(&port.id))),
        };
        Neighbour {
            interface: interface.name,
            system: chassis.and_then(|chassis| first(&chassis.name)),
            chassis: chassis.and_then(|chassis| first(&chassis.id)),
            port: port_name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lldpd 1.0.16 printed of another, which ran on Linux and described itself in two lines.
    const FROM_LINUX: &str = r#"{ "lldp": [ { "interface": [ {
        "name": "eth2", "via": "LLDP", "rid": "1", "age": "0 day, 00:00:02",
        "chassis": [ {
            "id": [ { "type": "mac", "value": "76:a1:00:24:70:28" } ],
            "name": [ { "value": "leaf1" } ],
            "descr": [ { "value": "leaf switch\nlldp.eth9.chassis.name=forged" } ],
            "mgmt-ip": [ { "value": "fe80::74a1:ff:fe24:7028" } ],
            "mgmt-iface": [ { "value": "2" } ],
            "capability": [ { "type": "Bridge", "enabled": false }, { "type": "Station", "enabled": true } ] } ],
        "port": [ {
            "id": [ { "type": "mac", "value": "76:a1:00:24:70:28" } ],
            "descr": [ { "value": "swp7" } ],
            "ttl": [ { "value": "4" } ],
            "auto-negotiation": [ { "supported": false, "enabled": false,
                "current": [ { "value": "10GbaseT - Four-pair Category 6A or better, full duplex mode only" } ] } ]
        } ] } ] } ] }"#;

    /// In the shape of the same, what a switch that names its ports tells, on two interfaces; and one that tells nothing
    /// but what it must.
    const FROM_SWITCHES: &str = r#"{ "lldp": [ { "interface": [
        { "name": "ens1f0np0", "via": "LLDP",
          "chassis": [ { "id": [ { "type": "mac", "value": "98:5d:82:00:11:22" } ], "name": [ { "value": "leaf-a" } ] } ],
          "port": [ { "id": [ { "type": "ifname", "value": "Ethernet1/7" } ], "descr": [ { "value": "to node17" } ] } ],
          "vlan": [ { "vlan-id": "100", "pvid": true } ] },
        { "name": "ens1f1np1", "via": "LLDP",
          "chassis": [ { "id": [ { "type": "local", "value": "chassis 9" } ] } ],
          "port": [ { "id": [ { "type": "mac", "value": "98:5d:82:00:11:29" } ] } ] }
        ] } ] }"#;

    fn neighbour(interface: &str, system: Option<&str>, chassis: &str, port: &str) -> Neighbour {
        Neighbour {
            interface: interface.into(),
            system: system.map(str::to_owned),
            chassis: Some(chassis.into()),
            port: Some(port.into()),
        }
    }

    #[test]
    fn switches_and_other_hosts() {
        let expected = [neighbour("eth2", Some("leaf1"), "76:a1:00:24:70:28", "swp7")];
        assert_eq!(Neighbour::parse(FROM_LINUX), expected);
        let expected = [
            neighbour("ens1f0np0", Some("leaf-a"), "98:5d:82:00:11:22", "Ethernet1/7"),
            neighbour("ens1f1np1", None, "chassis 9", "98:5d:82:00:11:29"),
        ];
        assert_eq!(Neighbour::parse(FROM_SWITCHES), expected);
    }

    #[test]
    fn what_is_no_answer_has_no_neighbours() {
        for text in ["", "{}", "[]", r#"{"lldp":[{}]}"#, r#"{"lldp":7}"#, "lldp.eth2.via=LLDP"] {
            assert_eq!(Neighbour::parse(text), [], "{text}");
        }
        let forged = FROM_SWITCHES.replace("leaf-a", r"leaf\n  net 9\u001b[2J");
        assert_eq!(Neighbour::parse(&forged)[0].system.as_deref(), Some("leaf   net 9 [2J"));
    }

    #[test]
    fn a_command_that_hangs_fails_or_is_missing_is_silence() {
        let ask = |script: &str, milliseconds| {
            let mut command = Command::new("sh");
            Neighbour::ask_by(command.args(["-c", script]), Duration::from_millis(milliseconds))
        };
        let script = format!("cat <<'END'\n{FROM_LINUX}\nEND\n");
        assert_eq!(ask(&script, 20_000).len(), 1);
        assert_eq!(ask(&format!("{script}exit 1"), 20_000), []);
        let began = Instant::now();
        assert_eq!(ask("exec sleep 30", 200), []);
        // With its output closed it still has to end; and what it started may keep its output open.
        assert_eq!(ask("exec >&-; exec sleep 30", 200), []);
        assert_eq!(ask("sleep 5 & exit 0", 200), []);
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        assert_eq!(Neighbour::ask_by(&mut Command::new("no-such-command"), Duration::from_secs(1)), []);
    }
}
