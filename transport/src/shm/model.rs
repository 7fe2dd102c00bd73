//! What a model check needs of the protocol: the shipped parts, driven one by one. Built under `cfg(loom)` only.
