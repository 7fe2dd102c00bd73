//! NCCL's figures for bandwidths, in GB/s: what can be used of a link, by experience, not what its maker prints.

use crate::system::{C2c, Cpu, Gpu, LinkKind, Net, Pci};

/// Inside of a device, and wherever nothing is known that would limit.
pub const LOCAL: f64 = 5000.0;

/// A device's PCI link: width x lane speed / 80, with the lane speed in 100 Mb/s. A width that is not known is 16, a
/// speed 8 GT/s.
///
/// The speed in the file is the lesser of the device's and of the port's above it already.
pub fn pci(device: &Pci) -> f64 {
    let lane = match device.speed.map(|speed| speed.0) {
        Some(2_500) => 15.0,
        Some(5_000) => 30.0,
        Some(16_000) => 120.0,
        Some(32_000) => 240.0,
        Some(64_000) => 480.0,
        // 8 GT/s, and what is not known.
        _ => 60.0,
    };
    f64::from(device.width.unwrap_or(16)) * lane / 80.0
}

/// A port: Mb/s / 8000. One whose speed is not known has 10 Gb/s.
pub fn net(port: &Net) -> f64 {
    f64::from(port.speed.filter(|speed| *speed != 0).unwrap_or(10_000)) / 8000.0
}

/// One of a GPU's links to others.
pub fn gpu_link(gpu: &Gpu, kind: LinkKind) -> f64 {
    match kind {
        LinkKind::NvLink => match gpu.sm.unwrap_or(80) {
            107 => 31.2,
            100.. => 40.1,
            90.. => 20.6,
            86 => 12.0,
            60..70 => 18.0,
            _ => 20.0,
        },
        LinkKind::Xgmi => match gpu.gcn.as_deref().map(|gcn| gcn.trim_start_matches("gfx")) {
            Some(gcn) if gcn.starts_with("94") || gcn.starts_with("95") => 48.0,
            Some("90a" | "910") => 36.0,
            _ => 24.0,
        },
    }
}

/// The coherent links between a GPU and its processor, together.
pub fn c2c(links: &C2c) -> f64 {
    let (bandwidth, count) = (links.bandwidth.unwrap_or(0), links.count.unwrap_or(0));
    f64::from(bandwidth) * f64::from(count) / 1000.0
}

/// From one NUMA node of a host to the others.
pub fn between_cpus(cpu: &Cpu) -> f64 {
    match (cpu.arch.as_deref(), cpu.vendor.as_deref()) {
        (Some("ppc64" | "ppc64le"), _) => 32.0,
        (Some("arm64" | "aarch64"), _) => 6.0,
        (Some("x86_64"), Some("GenuineIntel")) => intel(cpu),
        (Some("x86_64"), Some("AuthenticAMD")) => match cpu.family {
            // Zen 5; then Zen 3 and 4. The second number of each is how old files add the family's two parts.
            Some(26 | 0xbf) => 32.0,
            Some(25 | 0xaf) => 24.0,
            _ => 16.0,
        },
        (Some("x86_64"), Some("CentaurHauls" | "  Shanghai  ")) => {
            if (cpu.family, cpu.model) == (Some(7), Some(0x5b)) { 9.0 } else { 6.0 }
        }
        _ => LOCAL,
    }
}

fn intel(cpu: &Cpu) -> f64 {
    match (cpu.family, cpu.model.unwrap_or(0)) {
        // Emerald Rapids and later; Granite Rapids and Sierra Forest have lower numbers.
        (Some(6), 0xcf.. | 0xad..=0xaf) => 40.0,
        // Sapphire Rapids, then Skylake.
        (Some(6), 0x8f..) => 22.0,
        (Some(6), 0x55..) => 10.0,
        _ => 6.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::LinkSpeed;

    #[test]
    fn pci_links_by_width_and_speed() {
        let device = |speed: Option<u32>, width| {
            let mut device = Pci::new("0:0.0".parse().unwrap());
            (device.speed, device.width) = (speed.map(LinkSpeed), width);
            pci(&device)
        };
        assert_eq!(device(Some(16_000), Some(16)), 24.0);
        assert_eq!(device(Some(8_000), Some(4)), 3.0);
        assert_eq!(device(Some(64_000), Some(2)), 12.0);
        assert_eq!(device(None, None), 12.0);
    }

    #[test]
    fn processors_by_maker_and_age() {
        let cpu = |arch: &str, vendor: &str, family, model| {
            let (arch, vendor) = (Some(arch.to_owned()), Some(vendor.to_owned()));
            between_cpus(&Cpu { arch, vendor, family: Some(family), model: Some(model), ..Cpu::default() })
        };
        assert_eq!(cpu("x86_64", "GenuineIntel", 6, 79), 6.0);
        assert_eq!(cpu("x86_64", "GenuineIntel", 6, 85), 10.0);
        assert_eq!(cpu("x86_64", "GenuineIntel", 6, 143), 22.0);
        assert_eq!(cpu("x86_64", "GenuineIntel", 6, 0xad), 40.0);
        assert_eq!(cpu("x86_64", "AuthenticAMD", 23, 49), 16.0);
        assert_eq!(cpu("x86_64", "AuthenticAMD", 175, 1), 24.0);
        assert_eq!(cpu("arm64", "ARM", 0, 0), 6.0);
        assert_eq!(between_cpus(&Cpu::default()), LOCAL);
    }

    #[test]
    fn gpu_links_by_age() {
        let nvlink = |sm| gpu_link(&Gpu { sm: Some(sm), ..Gpu::default() }, LinkKind::NvLink);
        assert_eq!(
            [60, 70, 80, 86, 89, 90, 100, 107].map(nvlink),
            [18.0, 20.0, 20.0, 12.0, 20.0, 20.6, 40.1, 31.2]
        );
        let xgmi = |gcn: &str| gpu_link(&Gpu { gcn: Some(gcn.to_owned()), ..Gpu::default() }, LinkKind::Xgmi);
        assert_eq!(["906", "gfx90a", "910", "gfx942", "gfx950"].map(xgmi), [24.0, 36.0, 36.0, 48.0, 48.0]);
    }
}
