//! Values that are about RDMA, and what they mean for the choice of ports and addresses.

use super::{Config, Family, Value, nearest};
use rccl_topology::{DeviceList, Prefix, RoceVersion, Wishes};

/// What carries data between hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// RDMA where it can be had, else TCP.
    Auto,
    /// RDMA or nothing.
    Verbs,
    /// TCP only.
    Tcp,
}

/// The words, NCCL's too; the first of each is what is shown.
const NETS: [(&str, Net); 5] =
    [("auto", Net::Auto), ("verbs", Net::Verbs), ("tcp", Net::Tcp), ("IB", Net::Verbs), ("Socket", Net::Tcp)];

impl Value for Net {
    fn parse(text: &str) -> Result<Self, String> {
        let net = NETS.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        net.map(|(_, net)| net).ok_or_else(|| {
            let words = NETS.map(|(word, _)| word);
            let meant =
                nearest(text, words).map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
            format!("one of {}{meant}", words.join(", "))
        })
    }
    fn show(&self) -> String {
        NETS.into_iter().find(|(_, net)| net == self).map_or("", |(word, _)| word).to_owned()
    }
}

/// An index in a table of GIDs; `None`, written -1, where it is left to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GidIndex(pub Option<u8>);

impl Value for GidIndex {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "-1" {
            return Ok(GidIndex(None));
        }
        let index = text.parse().map_err(|_| "an index from 0 to 255, or -1 for any".to_owned())?;
        Ok(GidIndex(Some(index)))
    }
    fn show(&self) -> String {
        self.0.map_or_else(|| "-1".to_owned(), |index| index.to_string())
    }
}

/// Whether devices may write to memory in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelaxedOrdering {
    /// No.
    Off,
    /// Yes, and it is an error where the device does not know it.
    On,
    /// Where the device knows it.
    Auto,
}

impl Value for RelaxedOrdering {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "0" => Ok(RelaxedOrdering::Off),
            "1" => Ok(RelaxedOrdering::On),
            "2" => Ok(RelaxedOrdering::Auto),
            _ => Err("0, 1 or 2".into()),
        }
    }
    fn show(&self) -> String {
        (*self as u8).to_string()
    }
}

impl Value for DeviceList {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }
    fn show(&self) -> String {
        if self.is_empty() { "-".into() } else { self.to_string() }
    }
}

impl Value for Prefix {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for RoceVersion {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Config {
    /// What these settings ask of the choice of RDMA ports and addresses.
    pub fn rdma_wishes(&self) -> Wishes {
        Wishes {
            disabled: self.ib_disable || self.net == Net::Tcp,
            devices: self.ib_hca.clone(),
            gid_index: self.ib_gid_index.0,
            family: self.ib_addr_family.map(|family| match family {
                Family::V4 => rccl_topology::Family::V4,
                Family::V6 => rccl_topology::Family::V6,
            }),
            range: self.ib_addr_range,
            roce_version: self.ib_roce_version_num,
            partition: self.ib_pkey,
            traffic_class: self.ib_tc.map(|class| class.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> Config {
        Config::from_vars(vars.iter().copied()).unwrap()
    }

    #[test]
    fn settings_become_wishes() {
        assert_eq!(Config::default().rdma_wishes(), Wishes::default());
        let wishes = config(&[
            ("NCCL_IB_HCA", "^=mlx5_3:1"),
            ("RCCL_IB_GID_INDEX", "3"),
            ("RCCL_IB_ADDR_FAMILY", "AF_INET6"),
            ("RCCL_IB_ADDR_RANGE", "fd07::/48"),
            ("NCCL_IB_ROCE_VERSION_NUM", "2"),
            ("RCCL_IB_PKEY", "1"),
            ("NCCL_IB_TC", "104"),
        ])
        .rdma_wishes();
        assert_eq!(wishes.devices.to_string(), "^=mlx5_3:1");
        assert_eq!((wishes.gid_index, wishes.partition, wishes.traffic_class), (Some(3), 1, Some(104)));
        assert_eq!(wishes.family, Some(rccl_topology::Family::V6));
        assert_eq!(wishes.range, Some("fd07::/48".parse().unwrap()));
        assert_eq!(wishes.roce_version, Some(RoceVersion::V2));
        for off in [("RCCL_IB_DISABLE", "1"), ("NCCL_IB_DISABLE", "1"), ("RCCL_NET", "Socket")] {
            assert!(config(&[off]).rdma_wishes().disabled, "{off:?}");
        }
    }

    #[test]
    fn values_are_checked_in_ours_and_passed_over_in_nccls() {
        for (name, value, expected) in [
            ("RCCL_NET", "verb", "one of auto, verbs, tcp, IB, Socket (did you mean `verbs`?)"),
            ("RCCL_IB_TIMEOUT", "0", "a whole number from 1 to 31"),
            ("RCCL_IB_RETRY_CNT", "8", "a whole number from 0 to 7"),
            ("RCCL_IB_SL", "16", "a whole number from 0 to 15"),
            ("RCCL_IB_GID_INDEX", "-2", "an index from 0 to 255, or -1 for any"),
            ("RCCL_IB_HCA", "a,^b", "a list of devices"),
            ("RCCL_IB_ADDR_RANGE", "10.0.0.0/40", "a range of addresses"),
            ("RCCL_IB_PCI_RELAXED_ORDERING", "3", "0, 1 or 2"),
        ] {
            let error = Config::from_vars([(name, value)]).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}={value}: expected {expected}")), "{error}");
        }
        assert_eq!(config(&[("NCCL_IB_TIMEOUT", "99")]), Config::default());
        assert_eq!(config(&[("NCCL_IB_TIMEOUT", "22")]).ib_timeout.0, 22);
        assert_eq!(config(&[("RCCL_NET", "ib")]).net, Net::Verbs);
        assert_eq!(config(&[("RCCL_IB_GID_INDEX", "-1")]).ib_gid_index, GidIndex(None));
    }
}
