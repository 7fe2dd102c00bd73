//! Random hosts: sockets, switches in switches, GPUs and adapters anywhere on them.

use proptest::prelude::*;
use rccl_topology::graph::{Graph, Hop, Pattern};
use rccl_topology::system::{BusId, Cpu, Gpu, Hex, LinkSpeed, Net, Nic, Pci, PciClass, System};

/// A host, as choices.
#[derive(Clone, Debug)]
pub struct Made {
    sockets: usize,
    /// What each device hangs on (a socket, or a switch before it), how many lanes it has, and what it is.
    devices: Vec<(usize, u32, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Switch,
    Gpu,
    /// With as many ports of 10 Gb/s.
    Adapter(u32),
}

/// Hosts of up to three sockets and eight GPUs. On wide ones nothing but ports limits what a ring may carry.
pub fn hosts(wide: bool) -> impl Strategy<Value = Made> {
    let kind = prop_oneof![
        2 => Just(Kind::Switch),
        3 => Just(Kind::Gpu),
        2 => (1_u32..3).prop_map(Kind::Adapter),
    ];
    let lanes = if wide { 16_u32..17 } else { 1..17 };
    let device = (any::<prop::sample::Index>(), lanes, kind);
    (1_usize..4, proptest::collection::vec(device, 1..16)).prop_map(|(sockets, choices)| {
        let mut devices: Vec<(usize, u32, Kind)> = Vec::new();
        let mut above: Vec<usize> = (0..sockets).collect();
        for (parent, lanes, kind) in choices {
            let count = |kind: fn(&Kind) -> bool| devices.iter().filter(|(.., its)| kind(its)).count();
            let full = match kind {
                Kind::Switch => false,
                Kind::Gpu => count(|kind| *kind == Kind::Gpu) == 8,
                Kind::Adapter(_) => count(|kind| matches!(kind, Kind::Adapter(_))) == 2,
            };
            if full {
                continue;
            }
            let parent = above[parent.index(above.len())];
            if kind == Kind::Switch {
                above.push(sockets + devices.len());
            }
            devices.push((parent, lanes, kind));
        }
        Made { sockets, devices }
    })
}

impl Made {
    pub fn ports(&self) -> usize {
        let ports = |kind: &Kind| if let Kind::Adapter(ports) = kind { *ports as usize } else { 0 };
        self.devices.iter().map(|(.., kind)| ports(kind)).sum()
    }

    pub fn system(&self) -> System {
        let cpu = |socket: usize| Cpu {
            numa: Some(socket as u32),
            arch: Some("x86_64".into()),
            vendor: Some("GenuineIntel".into()),
            // 10 GB/s to the other sockets.
            family: Some(6),
            model: Some(85),
            devices: self.below(socket),
            ..Cpu::default()
        };
        System { version: Some(1), name: None, cpus: (0..self.sockets).map(cpu).collect() }
    }

    fn below(&self, parent: usize) -> Vec<Pci> {
        let here = self.devices.iter().enumerate().filter(|(_, (its, ..))| *its == parent);
        here.map(|(number, (_, lanes, kind))| {
            let mut device = Pci::new(bus(number));
            (device.speed, device.width) = (Some(LinkSpeed(8_000)), Some(*lanes));
            device.class = Some(PciClass(match kind {
                Kind::Switch => 0x06_0400,
                Kind::Gpu => 0x03_0200,
                Kind::Adapter(_) => 0x02_0000,
            }));
            match kind {
                Kind::Switch => device.devices = self.below(self.sockets + number),
                Kind::Gpu => device.gpus = vec![Gpu::default()],
                Kind::Adapter(ports) => {
                    let net = |port: u32| Net {
                        dev: Some(number as u32 * 2 + port),
                        speed: Some(10_000),
                        guid: Some(Hex(number as u64)),
                        ..Net::default()
                    };
                    device.nics = vec![Nic { nets: (0..*ports).map(net).collect() }];
                }
            }
            device
        })
        .collect()
    }

    #[allow(dead_code, reason = "not every suite shuffles")]
    pub fn shuffled(&self, seed: u64) -> System {
        shuffle(&self.system(), seed)
    }

    /// Adds up, by plain walks up the tree, what the channels of a graph of rings put on each device's PCI link, each
    /// way, and between sockets.
    #[allow(dead_code, reason = "not every suite looks at links")]
    pub fn check_loads(&self, ring: &Graph) {
        assert_eq!(ring.pattern, Pattern::Ring);
        let bandwidth = ring.bandwidth_intra.unwrap();
        let gpus: Vec<usize> =
            (0..self.devices.len()).filter(|number| self.devices[*number].2 == Kind::Gpu).collect();
        let mut up = vec![0.0; self.devices.len()];
        let mut down = vec![0.0; self.devices.len()];
        let mut between = vec![vec![0.0; self.sockets]; self.sockets];
        for channel in &ring.channels {
            let place = |hop: &Hop| match hop {
                // Ranks are counted by address, and addresses by number.
                Hop::Gpu { rank, .. } => self.sockets + gpus[rank.unwrap() as usize],
                Hop::Net { dev } => self.sockets + *dev as usize / 2,
                Hop::Cpu { numa, .. } => *numa as usize,
            };
            let mut places: Vec<usize> = channel.hops.iter().map(place).collect();
            if channel.closes(Pattern::Ring) && places.len() > 1 {
                places.push(places[0]);
            }
            for pair in places.windows(2) {
                let (from, to) = (self.way_up(pair[0]), self.way_up(pair[1]));
                from.iter().filter(|at| !to.contains(at)).for_each(|at| {
                    if *at >= self.sockets {
                        up[at - self.sockets] += bandwidth;
                    }
                });
                to.iter().filter(|at| !from.contains(at)).for_each(|at| {
                    if *at >= self.sockets {
                        down[at - self.sockets] += bandwidth;
                    }
                });
                let (one, other) = (from[from.len() - 1], to[to.len() - 1]);
                if one != other {
                    between[one][other] += bandwidth;
                }
            }
        }
        for (number, (_, lanes, _)) in self.devices.iter().enumerate() {
            let most = f64::from(*lanes) * 0.75 + 1e-6;
            assert!(
                up[number] <= most && down[number] <= most,
                "device {number} carries {} {}",
                up[number],
                down[number]
            );
        }
        assert!(between.iter().flatten().all(|load| *load <= 10.0 + 1e-6), "{between:?}");
    }

    /// A device, what it hangs on, and so on up to the socket.
    #[allow(dead_code, reason = "not every suite looks at links")]
    fn way_up(&self, place: usize) -> Vec<usize> {
        std::iter::successors(Some(place), |at| Some(self.devices[at.checked_sub(self.sockets)?].0)).collect()
    }
}

fn bus(number: usize) -> BusId {
    BusId { domain: 0, bus: number as u8 + 1, device: 0, function: 0 }
}

/// The same host, listed in another order.
pub fn shuffle(host: &System, seed: u64) -> System {
    fn devices(list: &mut [Pci], random: &mut Random) {
        random.shuffle(list);
        for device in list {
            device.gpus.iter_mut().for_each(|gpu| random.shuffle(&mut gpu.links));
            nics(&mut device.nics, random);
            devices(&mut device.devices, random);
        }
    }
    fn nics(list: &mut [Nic], random: &mut Random) {
        random.shuffle(list);
        list.iter_mut().for_each(|nic| random.shuffle(&mut nic.nets));
    }
    let mut host = host.clone();
    let mut random = Random(seed);
    random.shuffle(&mut host.cpus);
    for cpu in &mut host.cpus {
        devices(&mut cpu.devices, &mut random);
        nics(&mut cpu.nics, &mut random);
    }
    host
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for place in (1..list.len()).rev() {
            list.swap(place, (self.next() % (place as u64 + 1)) as usize);
        }
    }
}
