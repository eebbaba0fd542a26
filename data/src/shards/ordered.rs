//! Work on several threads whose results are wanted in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};

/// Results that may wait for their turn, for each thread: enough that a slow one holds up no other,
/// and few enough to bound the memory.
const AHEAD: usize = 4;

struct State<R> {
    next: usize,
    taken: usize,
    done: BTreeMap<usize, R>,
    /// Nothing more is wanted.
    over: bool,
}

/// Calls `work` for each number of `range` on `threads` threads, and `take` with the results, on
/// this thread and in the numbers' order, until it fails.
///
/// # Errors
/// That of `take`.
pub(super) fn in_order<R: Send, E>(
    range: Range<usize>,
    threads: usize,
    work: impl Fn(usize) -> R + Sync,
    mut take: impl FnMut(usize, R) -> Result<(), E>,
) -> Result<(), E> {
    let state = State { next: range.start, taken: range.start, done: BTreeMap::new(), over: false };
    let (state, changed) = (Mutex::new(state), Condvar::new());
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let threads = threads.clamp(1, range.len().max(1));
    let run = || loop {
        let mut guard = lock();
        while !guard.over && guard.next < range.end && guard.next >= guard.taken + AHEAD * threads {
            guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        if guard.over || guard.next >= range.end {
            return;
        }
        let number = guard.next;
        guard.next += 1;
        drop(guard);
        let result = work(number);
        lock().done.insert(number, result);
        changed.notify_all();
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(run);
        }
        let outcome = range.clone().try_for_each(|number| {
            let mut guard = lock();
            let result = loop {
                match guard.done.remove(&number) {
                    Some(result) => break result,
                    None => guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
                }
            };
            guard.taken = number + 1;
            drop(guard);
            changed.notify_all();
            take(number, result)
        });
        lock().over = true;
        changed.notify_all();
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_few_wait() {
        let (taken, furthest) = (Mutex::new(0), Mutex::new(0));
        let work = |number: usize| {
            let ahead = number - *taken.lock().unwrap();
            let mut furthest = furthest.lock().unwrap();
            *furthest = ahead.max(*furthest);
            drop(furthest);
            // All others wait for a slow one.
            if number % 100 == 5 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            number * 2
        };
        let mut results = Vec::new();
        let take = |number, result| {
            *taken.lock().unwrap() = number;
            results.push(result);
            Ok::<(), ()>(())
        };
        in_order(0..500, 3, work, take).unwrap();
        assert_eq!(results, (0..500).map(|n| 2 * n).collect::<Vec<_>>());
        // One is on its way to `take` when the next may begin.
        let furthest = *furthest.lock().unwrap();
        assert!(furthest <= 3 * AHEAD + 1, "{furthest} ahead");
        assert_eq!(in_order(0..0, 2, |n| n, |_, _| Err(())), Ok(()));
    }

    #[test]
    fn an_error_ends_it() {
        let begun = Mutex::new(0);
        let work = |_| *begun.lock().unwrap() += 1;
        let take = |number, ()| if number == 10 { Err(number) } else { Ok(()) };
        assert_eq!(in_order(0..1_000_000, 2, work, take), Err(10));
        let begun = begun.into_inner().unwrap();
        assert!(begun <= 11 + 2 * AHEAD + 2, "{begun} were begun");
    }
}
