//! Awaits a future without a runtime.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

/// The smallest runtime there is: sleeps until it is woken.
///
/// # Panics
/// At `end`, with `what` was awaited.
pub fn block_on<F: Future>(future: F, end: Instant, what: &str) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        assert!(Instant::now() < end, "{what}: never woken");
        std::thread::park_timeout(end.saturating_duration_since(Instant::now()));
    }
}
