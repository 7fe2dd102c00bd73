//! What the training examples share: the data set, the network, the loop over epochs, and the pictures.
//!
//! How the work is parted over the ranks, and every call of rccl, is in the examples themselves.
#![forbid(unsafe_code)]

pub mod curve;
pub mod data;
pub mod network;
pub mod training;
