//! Trees of files as text, one of them a line:
//!
//! ```text
//! sys/class/net/eth0/mtu = 1500           a file; \n, \t and \\ in its content are escapes
//! sys/class/net/eth0 -> ../../devices/…   a symbolic link
//! sys/class/net/eth0/queues/rx-0/         an empty directory
//! address eth0 10.7.0.1/24                what the kernel tells by netlink
//! route eth0 10.8.0.0/16 gateway
//! kind eth0 veth
//! # …                                     a comment
//! ```
//!
//! `{0-15}` anywhere in a line stands for so many lines with a number each; `{}` after it for the same number, and `{mask}`
//! for it as a set of processors. `hosts/capture.sh` writes such a text of the host that it runs on.

use super::Tree;
use std::path::PathBuf;

impl Tree {
    /// Unpacks `tests/hosts/NAME.txt` of this crate.
    pub fn captured(name: &str) -> Tree {
        // The command's tests use it, too.
        let topology = PathBuf::from(env!("CARGO_MANIFEST_DIR")).with_file_name("topology");
        let path = topology.join(format!("tests/hosts/{name}.txt"));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut tree = Tree::new();
        text.lines().flat_map(expand).for_each(|line| tree.unpack(&line));
        tree
    }

    fn unpack(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["" | "#", ..] => {}
            ["address", interface, address] => self.address(interface, address),
            ["route", interface, destination] => self.route(interface, destination, false),
            ["route", interface, destination, "gateway"] => self.route(interface, destination, true),
            ["kind", interface, kind] => drop(self.network.kinds.insert(interface.into(), kind.into())),
            [path, "->", target] => drop(self.link(path, target)),
            [path] if path.ends_with('/') => std::fs::create_dir_all(self.root().join(path)).unwrap(),
            _ => match line.split_once(" = ") {
                Some((path, content)) => drop(self.file(path, &unescape(content))),
                None => panic!("not a line of a tree: {line}"),
            },
        }
    }
}

/// The lines that a line with a range stands for.
fn expand(line: &str) -> Vec<String> {
    let range = line.split_once('{').and_then(|(before, rest)| {
        let (range, after) = rest.split_once('}')?;
        let (first, last) = range.split_once('-')?;
        Some((before, first.parse::<usize>().ok()?..=last.parse().ok()?, after))
    });
    let Some((before, range, after)) = range else { return vec![line.to_owned()] };
    let line = |number: usize| {
        let mask: rccl_topology::system::CpuSet = [number].into_iter().collect();
        let after = after.replace("{}", &number.to_string()).replace("{mask}", &mask.mask());
        format!("{before}{number}{after}")
    };
    range.map(line).collect()
}

fn unescape(content: &str) -> String {
    let pieces = content.split("\\\\").map(|piece| piece.replace("\\n", "\n").replace("\\t", "\t"));
    pieces.collect::<Vec<_>>().join("\\")
}
