//! In which order a stage works on the micro-batches of a step.

/// One pass of one micro-batch through a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pass {
    /// Values go up to the next stage.
    Forward(usize),
    /// Errors go down to the stage before.
    Backward(usize),
}

/// One forward, one backward (PipeDream-Flush: Narayanan et al., 2021): a stage goes forward until its first error can
/// come back, then alternates, and ends with what is left to go backward. So a stage keeps the values of no more
/// micro-batches than there are stages from it to the end, where all forward first (GPipe) would keep all.
pub fn one_forward_one_backward(stage: u32, stages: u32, micro_batches: usize) -> Vec<Pass> {
    let ahead = micro_batches.min((stages - 1 - stage) as usize);
    let first = (0..ahead).map(Pass::Forward);
    let alternating = (ahead..micro_batches).flat_map(|m| [Pass::Forward(m), Pass::Backward(m - ahead)]);
    let rest = (micro_batches - ahead..micro_batches).map(Pass::Backward);
    first.chain(alternating).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::Pass::{Backward, Forward};
    use super::*;

    #[test]
    fn stages_alternate_and_keep_few() {
        assert_eq!(
            one_forward_one_backward(0, 2, 3),
            [Forward(0), Forward(1), Backward(0), Forward(2), Backward(1), Backward(2)]
        );
        assert_eq!(one_forward_one_backward(1, 2, 2), [Forward(0), Backward(0), Forward(1), Backward(1)]);
        for (stages, micro_batches) in (1..6).flat_map(|stages| (1..9).map(move |m| (stages, m))) {
            for stage in 0..stages {
                let passes = one_forward_one_backward(stage, stages, micro_batches);
                let (mut forward, mut backward) = (0, 0);
                for pass in passes {
                    match pass {
                        Forward(number) => assert_eq!(std::mem::replace(&mut forward, number + 1), number),
                        Backward(number) => assert_eq!(std::mem::replace(&mut backward, number + 1), number),
                    }
                    assert!(backward <= forward && forward - backward <= (stages - stage) as usize);
                }
                assert_eq!((forward, backward), (micro_batches, micro_batches));
            }
        }
    }
}
