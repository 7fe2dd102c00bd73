//! What every link must do, as checks that run on any pair of ends.
//!
//! A transport gives a function that makes a fresh [`Pair`] and writes, in a test module,
//!
//! ```ignore
//! rccl_transport::conformance_suite!(make_pair);
//! ```
//!
//! which makes one test of each check. Which modes a link offers it answers itself ([`Sink`](crate::Sink),
//! [`Source`](crate::Source)); the checks follow, so a link without mapped memory passes by other ways. Every wait has a
//! deadline of [`DEADLINE`], and a failed check says which message was not finished.

mod driver;
mod eager;
mod granted;
mod random;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use crate::link::Link;
use crate::memory::RegionTable;

/// Longest wait of a check. Generous: test machines are shared.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Both ends of a fresh link, and what belongs to them.
pub struct Pair {
    /// The two ends.
    pub links: [Box<dyn Link>; 2],
    /// The registered memory of each end, if the link knows regions.
    pub regions: [Option<Arc<RegionTable>>; 2],
    /// What a control plane would do meanwhile (pass the descriptors that were asked for); called often, must not
    /// block.
    pub service: Box<dyn Fn() + Send + Sync>,
}

pub use random::staying_threads;

/// A named check.
pub struct Check {
    /// What it shows.
    pub name: &'static str,
    /// Runs it on pairs from the function; panics if the link fails.
    pub run: fn(&dyn Fn() -> Pair),
}

/// All checks.
pub const CHECKS: &[Check] = &[
    Check { name: "both ends state the same limits", run: eager::limits_agree },
    Check { name: "eager messages of every size arrive whole", run: eager::every_size },
    Check { name: "messages keep their order", run: eager::order },
    Check { name: "a full link refuses, and recovers", run: eager::fills_and_recovers },
    Check { name: "the window holds WINDOW messages and recovers", run: granted::window },
    Check { name: "every pair of grants moves every size", run: granted::modes },
    Check { name: "bytes may be taken in any pieces", run: granted::pieces },
    Check { name: "a tag is seen before any byte moves", run: granted::tag_first },
    Check { name: "random messages match a model", run: random::programs },
    Check { name: "both directions work at once in two threads", run: random::threads },
    Check { name: "an end may be dropped at any time", run: random::drops },
    Check { name: "no wake-up is lost", run: waiting::ping_pong },
    Check { name: "arming sees what arrived before", run: waiting::arm_sees },
];

/// Makes one `#[test]` of each check of the suite; the argument is a `fn() -> Pair`. With `if` and a condition, which says
/// why if it does not hold, the tests are skipped where it does not.
#[macro_export]
macro_rules! conformance_suite {
    ($make:expr) => {
        $crate::conformance_suite!($make, if true);
    };
    ($make:expr, if $condition:expr) => {
        $crate::conformance_suite! { @tests $make, $condition;
            0 limits_agree, 1 eager_sizes, 2 order, 3 fills_and_recovers, 4 window, 5 modes, 6 pieces, 7 tag_first,
            8 random_programs, 9 threads, 10 drops, 11 no_lost_wakeup, 12 arm_sees
        }
    };
    (@tests $make:expr, $condition:expr; $($index:literal $name:ident),*) => {
        $(#[test] fn $name() { if $condition { ($crate::conformance::CHECKS[$index].run)(&$make); } })*
        #[test] fn all_checks_are_run() {
            assert_eq!([$($index),*].len(), $crate::conformance::CHECKS.len());
        }
    };
}
