//! Work in parts, on this thread and on threads that are there already: a new thread begins on the core of its maker, and often waits
//! there until that one is done.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use tokio::runtime::Handle;

use crate::run::failure_of;
use crate::{Error, Result};

struct Shared<F> {
    count: usize,
    work: F,
    /// The first part that nobody took.
    next: AtomicUsize,
}

type Told<T> = (usize, std::thread::Result<T>);

/// What `work` gives for each of `0..count`, in their order. On a thread that may wait.
///
/// # Errors
/// `work` panicked.
pub(crate) fn together<T, F>(runtime: &Handle, count: usize, work: F) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Fn(usize) -> T + Send + Sync + 'static,
{
    let shared = Arc::new(Shared { count, work, next: AtomicUsize::new(0) });
    let (tell, told) = channel();
    for _ in 1..count {
        let (shared, tell) = (Arc::clone(&shared), tell.clone());
        runtime.spawn_blocking(move || shared.go_on(&tell));
    }
    shared.go_on(&tell);
    // Whoever took a part runs, so that nothing is waited for that has yet to get a thread.
    let mut done: Vec<Option<T>> = (0..count).map(|_| None).collect();
    for _ in 0..count {
        let (part, outcome): Told<T> = told.recv().map_err(|_| Error::Cancelled)?;
        done[part] = Some(outcome.map_err(failure_of)?);
    }
    done.into_iter().map(|done| done.ok_or(Error::Cancelled)).collect()
}

impl<F> Shared<F> {
    /// Takes parts as long as there are any.
    fn go_on<T>(&self, tell: &Sender<Told<T>>)
    where
        F: Fn(usize) -> T,
    {
        loop {
            let part = self.next.fetch_add(1, Ordering::Relaxed);
            if part >= self.count {
                return;
            }
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| (self.work)(part)));
            // Nobody listens any more where another part failed.
            drop(tell.send((part, outcome)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_done_once_whether_or_not_threads_are_free() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).build();
        let runtime = runtime.expect("a runtime");
        assert_eq!(together(runtime.handle(), 5, |part| part * 2).expect("is done"), [0, 2, 4, 6, 8]);
        // The only thread that may wait is the one that asks.
        let handle = runtime.handle().clone();
        let inner = runtime.spawn_blocking(move || together(&handle, 3, |part| part));
        assert_eq!(runtime.block_on(inner).expect("ends").expect("is done"), [0, 1, 2]);
        assert!(together(runtime.handle(), 0, |part| part).expect("is done").is_empty());
    }

    #[test]
    fn a_panic_fails_the_whole() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let failed = together(runtime.handle(), 4, |part| assert_ne!(part, 2, "part {part}")).expect_err("fails");
        assert!(failed.to_string().contains("part 2"), "{failed}");
    }
}
