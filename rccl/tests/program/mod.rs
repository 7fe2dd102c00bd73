//! Random programs of calls: the same on all ranks, because one seed makes them, and with known results.
//!
//! [`call`] says what is called, [`arrays`] what lies in every rank's memory before and after it, by [`sample`]'s plain
//! arithmetic; [`operation`] makes a call in any of the ways that there are; [`steps`] strings calls together, with
//! communicators that come and go.
#![allow(dead_code, missing_docs, reason = "several test programs use parts of it")]

pub mod arrays;
mod awaiting;
pub mod call;
pub mod operation;
pub mod sample;
pub mod steps;
pub mod stream;
