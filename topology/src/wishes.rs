//! What a user wants of the choice.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::device_list::DeviceList;
use crate::prefix::Prefix;

/// What a user allows and demands; the default allows everything and leaves the choice to the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// No RDMA at all (`RCCL_IB_DISABLE`, `RCCL_NET=tcp`).
    pub disabled: bool,
    /// Devices and ports (`RCCL_IB_HCA`).
    pub devices: DeviceList,
    /// This entry of each port's GID table, whatever its family, range and version (`RCCL_IB_GID_INDEX`).
    pub gid_index: Option<u8>,
    /// Only addresses of this family (`RCCL_IB_ADDR_FAMILY`).
    pub family: Option<Family>,
    /// Only addresses of this range (`RCCL_IB_ADDR_RANGE`).
    pub range: Option<Prefix>,
    /// Only this version of RoCE (`RCCL_IB_ROCE_VERSION_NUM`).
    pub roce_version: Option<RoceVersion>,
    /// Index in the port's table of partition keys (`RCCL_IB_PKEY`).
    pub partition: u16,
    /// The traffic class of all packets (`RCCL_IB_TC`); without it the system's default.
    pub traffic_class: Option<u8>,
}

/// A family of IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// IPv4: `AF_INET`.
    #[serde(rename = "AF_INET")]
    V4,
    /// IPv6: `AF_INET6`.
    #[serde(rename = "AF_INET6")]
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "AF_INET",
            Family::V6 => "AF_INET6",
        })
    }
}

/// A version of RoCE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoceVersion {
    /// Version 1.
    #[serde(rename = "1")]
    V1,
    /// Version 2.
    #[serde(rename = "2")]
    V2,
}

impl FromStr for RoceVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<RoceVersion, String> {
        match text {
            "1" => Ok(RoceVersion::V1),
            "2" => Ok(RoceVersion::V2),
            _ => Err("1 or 2".into()),
        }
    }
}

impl fmt::Display for RoceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RoceVersion::V1 => "1",
            RoceVersion::V2 => "2",
        })
    }
}
