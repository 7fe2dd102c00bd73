//! Training in pipelines gives the curve of data-parallel training.

mod launch;

use launch::{curve, learns_as_digits_does};

const PIPELINE: &str = env!("CARGO_BIN_EXE_pipeline");

/// Two layers: on more than two ranks there are several pipelines, on an odd number the last has one stage only.
#[test]
fn any_number_of_ranks_learns_as_digits_does() {
    for (ranks, pipelines, stages) in [(1, 1, 1), (2, 1, 2), (4, 2, 2), (5, 3, 2)] {
        let said = learns_as_digits_does(PIPELINE, ranks, &[], &[]);
        assert_eq!(curve(&said)[29].1, 98.06);
        let shape = format!("{ranks} rank(s): {pipelines} pipeline(s) of up to {stages} stage(s)");
        assert!(said.contains(&shape), "{said}");
    }
}

/// Stages of several layers, stages of one, and with five ranks a second pipeline of one stage.
#[test]
fn deeper_networks_make_more_stages() {
    for ranks in [3, 4, 5] {
        learns_as_digits_does(PIPELINE, ranks, &[], &["--hidden", "24,12,24", "--epochs", "3"]);
    }
}

/// With more micro-batches than examples, some are empty.
#[test]
fn the_number_of_micro_batches_does_not_matter() {
    for micro_batches in ["1", "3", "70"] {
        learns_as_digits_does(PIPELINE, 2, &["--micro-batches", micro_batches], &["--epochs", "3"]);
    }
}
