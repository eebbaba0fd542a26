//! Several processes that read one data set together.

use crate::error::error_chain;
use crate::{Error, Result};

/// Processes that read one data set together.
pub trait Peers {
    /// This process's number, below [`Peers::size`].
    fn rank(&self) -> usize;

    /// How many processes there are, itself included.
    fn size(&self) -> usize;

    /// Everybody's bytes, by rank. All processes call it, equally often.
    ///
    /// # Errors
    /// Those of what connects the processes.
    fn gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>>;

    /// The bytes of rank 0. All processes call it, equally often.
    ///
    /// # Errors
    /// Those of what connects the processes.
    fn of_first(&self, own: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.gather(own)?.swap_remove(0))
    }
}

/// A process without peers: rank 0 of 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Peers for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Ok(vec![own])
    }
}

/// Ends a message whose sender made what it was to make, and
const MADE: u8 = 0;
/// one that holds its error instead. The last byte, so that what was made need not be moved.
const FAILED: u8 = 1;

/// `own` on its way to the others, and the error if it is one.
fn message(own: Result<Vec<u8>>) -> (Vec<u8>, Option<Error>) {
    let (mut message, error) = match own {
        Ok(bytes) => (bytes, None),
        Err(error) => (error_chain(&error).into_bytes(), Some(error)),
    };
    message.push(if error.is_none() { MADE } else { FAILED });
    (message, error)
}

/// The error of `rank` on another process.
fn elsewhere(rank: usize, size: usize, text: &[u8]) -> Error {
    Error::Data(format!("rank {rank} of {size}: {}", String::from_utf8_lossy(text)))
}

/// What rank 0 made, or its error, on all processes. What the others made is left aside; an error
/// of theirs is one that rank 0 has too, such as a setting's.
pub(super) fn share_first(peers: &dyn Peers, own: Result<Vec<u8>>) -> Result<Vec<u8>> {
    let (message, error) = message(own);
    let mut shared = peers.of_first(message)?;
    match (shared.pop(), error) {
        (_, Some(error)) => Err(error),
        (Some(MADE), None) => Ok(shared),
        _ => Err(elsewhere(0, peers.size(), &shared)),
    }
}

/// What every process made, by rank; or the error of the first that failed, on all of them.
///
/// A process that failed takes part all the same, so that nobody waits for it. It keeps its own
/// error if that is the first; the others get its text and whose it is.
pub(super) fn share(peers: &dyn Peers, own: Result<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    let (message, error) = message(own);
    let mut gathered = peers.gather(message)?;
    let (rank, size) = (peers.rank(), peers.size());
    if gathered.len() != size {
        let rule = format!("there are {size} processes");
        return Err(Error::invalid("number of gathered messages", gathered.len(), rule));
    }
    let failed = gathered.iter_mut().position(|message| message.pop() != Some(MADE));
    match (failed, error) {
        (None, _) => Ok(gathered),
        (Some(first), Some(error)) if first == rank => Err(error),
        (Some(first), _) => Err(elsewhere(first, size, &gathered[first])),
    }
}

/// Threads in the place of processes.
#[cfg(test)]
pub(crate) mod threads {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    /// One of several threads.
    pub(crate) struct Thread {
        rank: usize,
        to: Vec<Sender<Vec<u8>>>,
        from: Vec<Receiver<Vec<u8>>>,
        /// Gathers so far.
        pub gathers: AtomicUsize,
        /// Bytes that came from the others so far.
        pub received: AtomicUsize,
    }

    impl Peers for Thread {
        fn rank(&self) -> usize {
            self.rank
        }

        fn size(&self) -> usize {
            self.to.len()
        }

        /// Fails where a peer doesn't take part, which between processes would be to wait for
        /// ever.
        fn gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
            self.gathers.fetch_add(1, Ordering::Relaxed);
            for to in &self.to {
                // One that has left is missed below, by those that wait for it.
                let _ = to.send(own.clone());
            }
            let gathered: Vec<Vec<u8>> = self
                .from
                .iter()
                .map(|from| from.recv_timeout(Duration::from_secs(60)))
                .collect::<std::result::Result<_, _>>()
                .map_err(|e| Error::Data(format!("a peer did not take part: {e}")))?;
            let received: usize = gathered.iter().map(Vec::len).sum();
            self.received.fetch_add(received - own.len(), Ordering::Relaxed);
            Ok(gathered)
        }
    }

    /// What `work` gives in each of `size` threads, by rank.
    pub(crate) fn together<R: Send>(size: usize, work: impl Fn(&Thread) -> R + Sync) -> Vec<R> {
        let mut threads: Vec<Thread> = (0..size)
            .map(|rank| Thread {
                rank,
                to: Vec::new(),
                from: Vec::new(),
                gathers: AtomicUsize::new(0),
                received: AtomicUsize::new(0),
            })
            .collect();
        for sender in 0..size {
            for receiver in 0..size {
                let (to, from) = channel();
                threads[sender].to.push(to);
                threads[receiver].from.push(from);
            }
        }
        std::thread::scope(|scope| {
            let work = &work;
            let running: Vec<_> =
                threads.into_iter().map(|thread| scope.spawn(move || work(&thread))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::threads::together;
    use super::*;

    #[test]
    fn everybody_gets_everything_by_rank() {
        let shared = together(3, |peers| share(peers, Ok(vec![peers.rank() as u8; 2])).unwrap());
        assert_eq!(shared, vec![vec![vec![0; 2], vec![1; 2], vec![2; 2]]; 3]);
        assert_eq!(share(&Alone, Ok(vec![7])).unwrap(), [[7]]);
    }

    #[test]
    fn the_first_error_is_everybodys() {
        let errors = together(4, |peers| {
            let own = match peers.rank() {
                1 | 2 => Err(Error::invalid("rank", peers.rank(), "it must be lucky")),
                _ => Ok(Vec::new()),
            };
            share(peers, own).unwrap_err()
        });
        let text = "rank is 1, but it must be lucky";
        assert!(matches!(&errors[1], Error::Invalid { .. }) && errors[1].to_string() == text);
        for rank in [0, 2, 3] {
            assert_eq!(errors[rank].to_string(), format!("rank 1 of 4: {text}"));
        }
    }
}
