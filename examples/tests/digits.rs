//! Data-parallel training gives the same curve and the same accuracy on any number of ranks.

mod launch;

use launch::{curve, learns_as_digits_does};

#[test]
fn any_number_of_ranks_learns_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for ranks in [1, 2, 4, 5] {
        let picture = folder.path().join(format!("{ranks}.svg"));
        let said =
            learns_as_digits_does(env!("CARGO_BIN_EXE_digits"), ranks, &[picture.to_str().unwrap()], &[]);
        let curve = curve(&said);
        assert_eq!(curve.len(), 30, "one line an epoch");
        assert_eq!(curve[29].1, 98.06, "the accuracy that the documentation names");
        let picture = std::fs::read_to_string(picture).unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    }
}
