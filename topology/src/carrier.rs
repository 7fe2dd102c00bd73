//! What really carries the bytes of a network interface.

use crate::host::{Host, Interface};

impl Host {
    /// The interfaces that carry the bytes of another, as far as this network namespace shows them: itself, if it rests on
    /// nothing. Else, and so on from there,
    ///
    /// * a bond's members, or the one that is active in modes with one;
    /// * the parent of a VLAN, macvlan or ipvlan;
    /// * the ports of a bridge, but for veths and the like where it has one with a device of its own;
    /// * the bridge that the other end of a veth pair is a port of.
    ///
    /// In the order of their names. Nothing if there is no interface of that name.
    pub fn carriers(&self, name: &str) -> Vec<&Interface> {
        let mut found = Vec::new();
        if let Some(interface) = self.interface(name) {
            self.follow(interface, &mut Vec::new(), &mut found);
        }
        found.sort_by(|one: &&Interface, other| crate::host::natural_order(&one.name, &other.name));
        found
    }

    /// Mbit/s of an interface: what the kernel says of it, else that of its carriers, all together for a bond that spreads
    /// over its members. `None` if no carrier's is known, as those of virtual machines often are not.
    pub fn speed(&self, name: &str) -> Option<u32> {
        let interface = self.interface(name)?;
        let virtual_kind = !self.below(interface).is_empty();
        if let Some(speed) = interface.speed.filter(|_| !virtual_kind || interface.bond_mode.is_some()) {
            return Some(speed);
        }
        let speeds = self.carriers(name).into_iter().filter_map(|carrier| carrier.speed);
        let spreads = |interface: &Interface| interface.spreads();
        if self.passes(interface, &spreads) { speeds.reduce(|sum, speed| sum + speed) } else { speeds.max() }
    }

    fn follow<'a>(
        &'a self,
        interface: &'a Interface,
        seen: &mut Vec<&'a str>,
        found: &mut Vec<&'a Interface>,
    ) {
        if seen.contains(&interface.name.as_str()) {
            return;
        }
        seen.push(&interface.name);
        let below = self.below(interface);
        if below.is_empty() {
            found.push(interface);
        }
        for next in below {
            self.follow(next, seen, found);
        }
    }

    /// What an interface rests on.
    fn below(&self, interface: &Interface) -> Vec<&Interface> {
        if let Some(active) = interface.active_member.as_deref().and_then(|name| self.interface(name)) {
            return vec![active];
        }
        let lower: Vec<&Interface> = interface.lower.iter().filter_map(|name| self.interface(name)).collect();
        if lower.is_empty() {
            return self.beyond(interface).into_iter().collect();
        }
        let real: Vec<&Interface> = lower.iter().copied().filter(|port| port.linked.is_none()).collect();
        if interface.kind.as_deref() == Some("bridge") && !real.is_empty() { real } else { lower }
    }

    /// The bridge behind the other end of a veth pair, if that end is here.
    fn beyond(&self, interface: &Interface) -> Option<&Interface> {
        let (own, linked) = (interface.index?, interface.linked?);
        // A number of another namespace may stand for anything here, so both ends must name each other.
        let peer =
            self.interfaces.iter().find(|peer| peer.index == Some(linked) && peer.linked == Some(own))?;
        self.interface(peer.master.as_deref()?)
    }

    /// Whether the way from an interface to its carriers leads over one that is `such`.
    fn passes(&self, interface: &Interface, such: &dyn Fn(&Interface) -> bool) -> bool {
        let mut seen = Vec::new();
        let mut next = vec![interface];
        while let Some(interface) = next.pop() {
            if such(interface) {
                return true;
            }
            if !seen.contains(&&interface.name) {
                seen.push(&interface.name);
                next.extend(self.below(interface));
            }
        }
        false
    }
}

impl Interface {
    /// Whether it is a bond that uses several members at once
    /// (Documentation/networking/bonding.rst of the Linux kernel).
    fn spreads(&self) -> bool {
        matches!(
            self.bond_mode.as_deref(),
            Some("balance-rr" | "balance-xor" | "802.3ad" | "balance-tlb" | "balance-alb")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name`, kind, what it rests on, its number and that of what it is linked with.
    fn host(interfaces: &[(&str, &str, &[&str], u32, u32)]) -> Host {
        let interface = |&(name, kind, lower, index, linked): &(&str, &str, &[&str], u32, u32)| Interface {
            name: name.into(),
            kind: (!kind.is_empty()).then(|| kind.to_owned()),
            lower: lower.iter().map(|&name| name.to_owned()).collect(),
            index: Some(index),
            linked: (linked > 0).then_some(linked),
            ..Interface::default()
        };
        let mut host = Host { interfaces: interfaces.iter().map(interface).collect(), ..Host::default() };
        for (bridge, ports) in interfaces.iter().filter(|one| one.1 == "bridge").map(|one| (one.0, one.2)) {
            for port in host.interfaces.iter_mut().filter(|port| ports.contains(&port.name.as_str())) {
                port.master = Some(bridge.into());
            }
        }
        host
    }

    fn names<'a>(host: &'a Host, of: &str) -> Vec<&'a str> {
        host.carriers(of).into_iter().map(|carrier| carrier.name.as_str()).collect()
    }

    fn set<'a>(host: &'a mut Host, name: &str) -> &'a mut Interface {
        host.interfaces.iter_mut().find(|interface| interface.name == name).unwrap()
    }

    #[test]
    fn a_vlan_on_a_bond_is_carried_by_its_members() {
        let mut host = host(&[
            ("eth1", "", &[], 2, 0),
            ("eth10", "", &[], 3, 0),
            ("bond0", "bond", &["eth10", "eth1"], 4, 0),
            ("bond0.7", "vlan", &["bond0"], 5, 4),
        ]);
        for name in ["eth1", "eth10"] {
            set(&mut host, name).speed = Some(25_000);
        }
        set(&mut host, "bond0").bond_mode = Some("802.3ad".into());
        assert_eq!(names(&host, "bond0.7"), ["eth1", "eth10"]);
        assert_eq!(host.speed("bond0.7"), Some(50_000));
        set(&mut host, "bond0").bond_mode = Some("active-backup".into());
        set(&mut host, "bond0").active_member = Some("eth10".into());
        assert_eq!((names(&host, "bond0.7"), host.speed("bond0.7")), (vec!["eth10"], Some(25_000)));
        assert_eq!((names(&host, "eth1"), host.speed("eth1")), (vec!["eth1"], Some(25_000)));
        assert_eq!((names(&host, "eth2"), host.speed("eth2")), (vec![], None));
    }

    #[test]
    fn a_veth_is_carried_by_what_its_bridge_leads_to() {
        let mut host = host(&[
            ("eth0", "", &[], 2, 0),
            ("br0", "bridge", &["eth0", "veth1"], 3, 0),
            ("veth0", "", &[], 4, 5),
            ("veth1", "", &[], 5, 4),
            ("macvlan0", "macvlan", &["eth0"], 6, 2),
            ("veth9", "", &[], 7, 5), // linked with number 5 of another namespace
        ]);
        set(&mut host, "eth0").speed = Some(10_000);
        set(&mut host, "veth0").speed = Some(10);
        assert_eq!((names(&host, "veth0"), host.speed("veth0")), (vec!["eth0"], Some(10_000)));
        assert_eq!(names(&host, "macvlan0"), ["eth0"]);
        assert_eq!(names(&host, "br0"), ["eth0"]);
        assert_eq!(names(&host, "veth9"), ["veth9"]);
    }

    #[test]
    fn a_bridge_of_veths_alone_is_carried_by_them_and_circles_end() {
        let host = host(&[
            ("br0", "bridge", &["veth1", "veth3"], 3, 0),
            ("veth1", "", &[], 5, 50),
            ("veth3", "", &[], 6, 60),
            ("a", "", &["b"], 7, 0),
            ("b", "", &["a"], 8, 0),
        ]);
        assert_eq!(names(&host, "br0"), ["veth1", "veth3"]);
        assert_eq!(names(&host, "a"), Vec::<&str>::new());
    }
}
