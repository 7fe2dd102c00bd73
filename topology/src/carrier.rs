//! What really carries the bytes of a network interface.

use crate::host::{Host, Interface};

impl Host {
    /// The interfaces that carry the bytes of another, as far as this network namespace shows them: itself, if it rests on
    /// nothing. Else, and so on from there,
    ///
    /// * a bond's members, or the one that is active in modes with one;
    /// * the parent of a VLAN, macvlan or ipvlan;
    /// * the ports of a bridge: those that are no ends of veth pairs and no taps; if there is none, those pairs' whose other
    ///   end is in another namespace; else all;
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

    /// Whether an interface leads to this host's own containers and virtual machines only, as far as can be seen: a bridge
    /// without ports, or whose ports are all ends of pairs and taps. Such bridges look alike on many hosts: that of Docker
    /// has the same address on each.
    pub fn stays_inside(&self, name: &str) -> bool {
        let Some(bridge) = self.interface(name).filter(|one| one.kind.as_deref() == Some("bridge")) else {
            return false;
        };
        bridge.lower.iter().filter_map(|port| self.interface(port)).all(Interface::is_end)
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
        if interface.kind.as_deref() != Some("bridge") {
            return lower;
        }
        let outer: Vec<&Interface> = lower.iter().copied().filter(|port| !port.is_end()).collect();
        let elsewhere =
            || lower.iter().copied().filter(|port| self.other_end(port).is_none()).collect::<Vec<_>>();
        [outer, elsewhere()].into_iter().find(|ports| !ports.is_empty()).unwrap_or(lower)
    }

    /// The bridge behind the other end of a veth pair, if that end is here.
    fn beyond(&self, interface: &Interface) -> Option<&Interface> {
        self.interface(self.other_end(interface)?.master.as_deref()?)
    }

    /// The other end of a veth pair, if it is here.
    pub fn other_end(&self, interface: &Interface) -> Option<&Interface> {
        let (own, linked) = (interface.index?, interface.linked?);
        // A number of another namespace may stand for anything here, so both ends must name each other.
        self.interfaces.iter().find(|other| other.index == Some(linked) && other.linked == Some(own))
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
    /// Whether it is an end of a veth pair, or leads to a program (tun, tap): as a bridge's port, to a container or a virtual
    /// machine.
    pub fn is_end(&self) -> bool {
        match self.kind.as_deref() {
            Some(kind) => matches!(kind, "veth" | "tun"),
            // What rests on nothing and is linked with another.
            None => self.linked.is_some() && self.lower.is_empty(),
        }
    }

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
    fn bridges_of_containers_lead_nowhere() {
        let host = host(&[
            ("docker0", "bridge", &[], 2, 0),
            ("br-c", "bridge", &["veth1", "tap0"], 3, 0),
            ("br0", "bridge", &["veth3", "eth0"], 4, 0),
            ("br1", "bridge", &["eth0.7"], 5, 0),
            ("br2", "bridge", &["vxlan0"], 6, 0),
            ("veth1", "", &[], 7, 70),
            ("veth3", "", &[], 8, 80),
            ("tap0", "tun", &[], 9, 0),
            ("eth0", "", &[], 10, 0),
            ("eth0.7", "vlan", &["eth0"], 11, 10),
            ("vxlan0", "vxlan", &[], 12, 10),
        ]);
        for name in ["docker0", "br-c"] {
            assert!(host.stays_inside(name), "{name}");
        }
        for name in ["br0", "br1", "br2", "eth0", "veth1", "nothing"] {
            assert!(!host.stays_inside(name), "{name}");
        }
    }

    #[test]
    fn a_bridge_of_ends_leads_to_the_other_namespaces() {
        let mut host = host(&[
            ("eth1", "veth", &[], 2, 0), // the other end has the number 2, too
            ("br0", "bridge", &["eth1", "outer"], 3, 0),
            ("inner", "veth", &[], 4, 5),
            ("outer", "veth", &[], 5, 4),
        ]);
        assert_eq!((names(&host, "br0"), names(&host, "inner")), (vec!["eth1"], vec!["eth1"]));
        assert!(host.stays_inside("br0"));
        set(&mut host, "eth1").kind = None;
        assert!(!host.stays_inside("br0"));
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
