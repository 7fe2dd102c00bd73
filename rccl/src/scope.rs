//! Calls that do not block and borrow their memory, inside of a scope that waits for them.

use crate::communicator::Communicator;
use crate::element::Element;
use crate::engine::Task;
use crate::error::Result;
use crate::op::Op;
use crate::request;
use crate::work::{Held, Work};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// Where calls may borrow memory: made by [`Communicator::scope`].
pub struct Scope<'scope, 'env: 'scope> {
    communicator: &'scope Communicator,
    under_way: Mutex<Vec<Arc<Held<()>>>>,
    /// As for [`std::thread::Scope`]: both lifetimes are invariant.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

impl Communicator {
    /// Runs `f`, in which calls that do not block may borrow memory that lives longer than the scope, and returns when
    /// all of them have ended.
    ///
    /// ```no_run
    /// # fn compute() {}
    /// let communicator = rccl::Communicator::from_env()?;
    /// let mut gradients = vec![1.0_f32; 1 << 20];
    /// communicator.scope(|calls| {
    ///     calls.all_reduce(&mut gradients, rccl::ReduceOp::Avg);
    ///     compute();
    /// })?;
    /// println!("{}", gradients[0]);
    /// # Ok::<(), rccl::Error>(())
    /// ```
    ///
    /// # Errors
    /// The first error of a call that `f` started, whether or not `f` has waited for it;
    /// [`Error::Forked`](crate::Error::Forked) in a child that `f` has forked, where the calls are the parent's.
    ///
    /// # Panics
    /// If `f` does, after the calls have ended.
    pub fn scope<'env, R>(
        &'env self,
        f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
    ) -> Result<R> {
        let scope =
            Scope { communicator: self, under_way: Mutex::default(), scope: PhantomData, env: PhantomData };
        let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
        let under_way = std::mem::take(&mut *scope.lock());
        let mut ended = self.shared().born.check();
        if ended.is_ok() {
            self.help_until(None, || under_way.iter().all(|held| held.is_done()));
            ended = under_way.iter().try_for_each(|held| held.result());
        }
        let result = result.unwrap_or_else(|panic| resume_unwind(panic));
        ended.map(|()| result)
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// # Safety
    /// The task's memory is borrowed for `'env`.
    unsafe fn start(&self, task: Result<Task>) -> Work<()> {
        let held = Held::new(());
        self.lock().push(held.clone());
        // SAFETY: the scope does not end before the task has, and the memory is borrowed for longer than the scope.
        unsafe { self.communicator.submit(task, held.clone()) };
        Work::new(self.communicator.clone(), held)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Held<()>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

macro_rules! methods {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        /// The calls of a [`Communicator`], each without waiting for it. [`Work::wait`] may be called, and need not.
        impl<'scope, 'env> Scope<'scope, 'env> {
            $(
                #[doc = concat!("As [`Communicator::", stringify!($name), "`].")]
                pub fn $name<T: Element>(&'scope self, $($argument: $type),*) -> Work<()> {
                    // SAFETY: the slices are borrowed for the scope's environment.
                    unsafe { self.start(request::$name(self.communicator.caller(), $($argument),*)) }
                }
            )*
            /// As [`Communicator::send`].
            pub fn send<T: Element>(&'scope self, x: &'env [T], to: u32) -> Work<()> {
                let task = request::send_alone(self.communicator.caller(), x, to);
                // SAFETY: as above.
                unsafe { self.start(task) }
            }
            /// As [`Communicator::recv`].
            pub fn recv<T: Element>(&'scope self, x: &'env mut [T], from: u32) -> Work<()> {
                let task = request::recv_alone(self.communicator.caller(), x, from);
                // SAFETY: as above.
                unsafe { self.start(task) }
            }
            /// As [`Communicator::barrier`].
            pub fn barrier(&'scope self) -> Work<()> {
                // SAFETY: the call moves no elements.
                unsafe { self.start(request::barrier(self.communicator.caller())) }
            }
        }
    };
}
request::for_borrowed!(methods 'env);
