//! Training with sharded parameters gives the curve of data-parallel training.

mod launch;

use launch::{curve, learns_as_digits_does};

const SHARDED: &str = env!("CARGO_BIN_EXE_sharded");

#[test]
fn any_number_of_ranks_learns_as_digits_does() {
    for ranks in [1, 2, 4, 5] {
        let said = learns_as_digits_does(SHARDED, ranks, &[], &[]);
        assert_eq!(curve(&said)[29].1, 98.06);
        let kept = format!("rank 0 of {ranks} kept {} of 2410 parameters", 2080 / ranks + 330 / ranks);
        assert!(said.contains(&kept), "{said}");
    }
}

#[test]
fn deeper_networks_learn_too() {
    learns_as_digits_does(SHARDED, 3, &[], &["--hidden", "17,5,23", "--epochs", "4"]);
}
