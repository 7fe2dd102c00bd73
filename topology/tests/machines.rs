//! Machines as their kernels show them, and what is found on them.

mod tree;

use rccl_topology::paths::{Network, PathType};
use rccl_topology::system::{Cpu, Pci, System};
use rccl_topology::xml;
use std::fmt::Write;
use tree::Tree;

fn discover(tree: &Tree) -> System {
    System::discover(tree.root(), &tree.host())
}

/// One line a node.
fn outline(system: &System) -> String {
    fn devices(text: &mut String, below: &[Pci], depth: usize) {
        for device in below {
            let link = match (device.speed, device.width) {
                (Some(speed), Some(width)) => format!(" {speed} x{width}"),
                _ => String::new(),
            };
            let gpus = if device.gpus.is_empty() { "" } else { " GPU" };
            let nets: Vec<String> = device.nics.iter().flat_map(|nic| &nic.nets).map(net).collect();
            let nets = if nets.is_empty() { String::new() } else { format!(" {}", nets.join(" ")) };
            writeln!(text, "{:depth$}{}{link}{gpus}{nets}", "", device.bus).unwrap();
            devices(text, &device.devices, depth + 1);
        }
    }
    fn net(net: &rccl_topology::system::Net) -> String {
        let speed = net.speed.map_or_else(String::new, |speed| format!("@{speed}"));
        format!("{}:{}{speed}", net.dev.unwrap(), net.name.as_deref().unwrap())
    }
    let mut text = String::new();
    for Cpu { numa, affinity, nics, devices: own, .. } in &system.cpus {
        let numa = numa.map_or_else(|| "?".into(), |numa| numa.to_string());
        let affinity = affinity.as_ref().map_or_else(String::new, |set| format!(" {set}"));
        let nets: Vec<String> = nics.iter().flat_map(|nic| &nic.nets).map(net).collect();
        let nets = if nets.is_empty() { String::new() } else { format!(" {}", nets.join(" ")) };
        writeln!(text, "node {numa}{affinity}{nets}").unwrap();
        devices(&mut text, own, 1);
    }
    text
}

const BRIDGE: &str = "0x060400";
const NIC: &str = "0x020000";
const GPU: &str = "0x030200";

/// Two sockets; on each a switch with a GPU and an RDMA adapter below it. The first socket has two ports of an Ethernet
/// adapter, bonded, and the second a management controller with its screen.
fn server() -> Tree {
    let mut tree = Tree::new();
    tree.node(0, "00000000,0000ffff").node(1, "ffffffff,00000000");
    tree.file("proc/cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nflags\t\t: fpu lm\n\nprocessor\t: 1");
    for (socket, bus, rdma) in [(0, "3a", "mlx5_0"), (1, "ba", "mlx5_1")] {
        let numa = socket;
        let root = format!("pci0000:{bus}/0000:{bus}:00.0");
        let up = format!("{root}/0000:{}:00.0", next(bus, 1));
        let gpu_port = format!("{up}/0000:{}:04.0", next(bus, 2));
        let nic_port = format!("{up}/0000:{}:05.0", next(bus, 2));
        tree.pci(&root, BRIDGE, ("16.0 GT/s PCIe", 16), numa)
            .pci(&up, BRIDGE, ("16.0 GT/s PCIe", 16), numa)
            .pci(&gpu_port, BRIDGE, ("16.0 GT/s PCIe", 16), numa)
            .pci(&nic_port, BRIDGE, ("16.0 GT/s PCIe", 16), numa)
            .pci(&format!("{gpu_port}/0000:{}:00.0", next(bus, 3)), GPU, ("32.0 GT/s PCIe", 16), numa);
        let nic = format!("{nic_port}/0000:{}:00.0", next(bus, 4));
        tree.pci(&nic, "0x020700", ("16.0 GT/s PCIe", 8), numa)
            .link(&format!("sys/class/infiniband/{rdma}/device"), &format!("../../../devices/{nic}"))
            .file(&format!("sys/class/infiniband/{rdma}/node_guid"), "0c42:a103:0012:3456");
        let interface = format!("ib{socket}");
        tree.device(rdma, &[("fe80::1", "v2", &interface)]);
        tree.interface(&interface, 9000, &[]);
    }
    for (port, name) in ["eno1", "eno2"].into_iter().enumerate() {
        let path = format!("pci0000:00/0000:00:02.0/0000:02:00.{port}");
        tree.pci(&path, NIC, ("8.0 GT/s PCIe", 4), 0);
        tree.interface(name, 1500, &[]);
        tree.link(&format!("sys/class/net/{name}/device"), &format!("../../../devices/{path}"))
            .file(&format!("sys/class/net/{name}/speed"), "25000");
    }
    tree.pci("pci0000:00/0000:00:02.0", BRIDGE, ("8.0 GT/s PCIe", 8), 0);
    tree.pci("pci0000:80/0000:80:01.0/0000:81:00.0/0000:82:00.0", "0x030000", ("5.0 GT/s PCIe", 1), 1);
    tree.interface("bond0", 1500, &[]);
    tree.file("sys/class/net/bond0/speed", "-1")
        .file("sys/class/net/bond0/bonding/mode", "802.3ad 4")
        .link("sys/class/net/bond0/lower_eno1", "../eno1")
        .link("sys/class/net/bond0/lower_eno2", "../eno2");
    tree.interface("lo", 65536, &[]);
    tree
}

/// The bus so many after another.
fn next(bus: &str, by: u8) -> String {
    format!("{:02x}", u8::from_str_radix(bus, 16).unwrap() + by)
}

#[test]
fn a_server_with_two_sockets() {
    let system = discover(&server());
    assert_eq!(
        outline(&system),
        "node 0 0-15 2:bond0@50000
 0000:02:00.0 8.0 GT/s PCIe x4 3:eno1@25000
 0000:02:00.1 8.0 GT/s PCIe x4 4:eno2@25000
 0000:3b:00.0 16.0 GT/s PCIe x16
  0000:3d:00.0 16.0 GT/s PCIe x16 GPU
  0000:3e:00.0 16.0 GT/s PCIe x8 0:mlx5_0@100000
node 1 32-63
 0000:bb:00.0 16.0 GT/s PCIe x16
  0000:bd:00.0 16.0 GT/s PCIe x16 GPU
  0000:be:00.0 16.0 GT/s PCIe x8 1:mlx5_1@100000
"
    );
    let cpu = &system.cpus[1];
    assert_eq!((cpu.arch.as_deref(), cpu.vendor.as_deref()), (Some("x86_64"), Some("AuthenticAMD")));
    assert_eq!((cpu.family, cpu.model), (Some(25), Some(1)));
    let nic = &system.cpus[0].devices[2].devices[1].nics[0].nets[0];
    assert_eq!((nic.guid.unwrap().to_string(), nic.port), ("0xc42a10300123456".into(), Some(1)));
}

#[test]
fn what_is_found_is_a_topology_like_those_of_files() {
    let system = discover(&server());
    let network = Network::new(&system);
    let path = |from: &str, to: &str| {
        let [from, to] = [from, to].map(|name| network.find(name).unwrap());
        let path = network.path(from, to);
        (path.kind, path.bandwidth)
    };
    assert_eq!(path("0000:3d:00.0", "0000:3e:00.0"), (PathType::Pix, 12.0));
    assert_eq!(path("0000:3d:00.0", "0000:be:00.0").0, PathType::Sys);
    assert_eq!(path("0000:3d:00.0", "0000:02:00.0"), (PathType::Phb, 3.0));
    let text = xml::write_system(&system);
    assert_eq!(xml::parse_system(text.as_bytes()).unwrap().value, system, "{text}");
}

/// As many containers are: interfaces without a device, and no directory of NUMA nodes.
#[test]
fn a_container_without_pci() {
    let mut tree = Tree::new();
    tree.file("proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8");
    tree.interface("lo", 65536, &[]);
    tree.interface("eth0", 1500, &[]);
    tree.file("sys/class/net/eth0/speed", "-1");
    let system = discover(&tree);
    assert_eq!(outline(&system), "node ? 0:eth0\n");
    assert_eq!(system.cpus[0].arch.as_deref(), Some("arm64"));
    assert_eq!(outline(&discover(&Tree::new())), "node ?\n");
}

/// A virtual machine: its adapter is a virtio device of a PCI device, which says nothing of its link. And a RoCE device in
/// software, which sends by the adapter of its interface.
#[test]
fn a_virtual_machine_with_soft_roce() {
    let mut tree = Tree::new();
    tree.node(0, "3").pci("pci0000:00/0000:00:03.0", NIC, ("Unknown", 0), -1);
    tree.interface("eth0", 1500, &[]);
    tree.link("sys/class/net/eth0/device", "../../../devices/pci0000:00/0000:00:03.0/virtio2")
        .file("sys/devices/pci0000:00/0000:00:03.0/virtio2/modalias", "virtio:d00000001v00001AF4");
    assert_eq!(outline(&discover(&tree)), "node 0 0-1\n 0000:00:03.0 0:eth0@100000\n");
    tree.device("rxe0", &[("fe80::1", "v2", "eth0")]);
    assert_eq!(outline(&discover(&tree)), "node 0 0-1\n 0000:00:03.0 0:rxe0@100000\n");
}

#[test]
fn a_device_on_no_known_node_is_on_none_of_those_there_are() {
    let tree = Tree::new();
    tree.node(0, "f").node(1, "f0").pci("pci0000:40/0000:40:00.0", GPU, ("16.0 GT/s PCIe", 16), -1);
    assert_eq!(
        outline(&discover(&tree)),
        "node 0 0-3\nnode 1 4-7\nnode ?\n 0000:40:00.0 16.0 GT/s PCIe x16 GPU\n"
    );
}

/// The machine of the test, whatever it is.
#[test]
fn this_machine() {
    let root = std::path::Path::new("/");
    let host =
        rccl_topology::Host::discover(root, rccl_topology::Network::of_this_host().unwrap_or_default());
    let system = System::discover(root, &host);
    println!("{}", xml::write_system(&system));
    assert!(!system.cpus.is_empty());
    let text = xml::write_system(&system);
    assert_eq!(xml::parse_system(text.as_bytes()).unwrap().value, system, "{text}");
}
