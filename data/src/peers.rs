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

/// Why what all were to make together is not there.
#[derive(Debug)]
pub enum Failure {
    /// The first process that failed, and what it said.
    At {
        /// Its number.
        rank: usize,
        /// Its error's text.
        text: String,
    },
    /// What connects the processes has failed.
    Connection(Error),
}

/// What every process made, by rank, or the failure of the first that has an error. One that
/// failed takes part all the same, so that nobody waits for it.
///
/// # Errors
/// [`Failure`].
pub fn gather_results(
    peers: &dyn Peers,
    own: std::result::Result<Vec<u8>, String>,
) -> std::result::Result<Vec<Vec<u8>>, Failure> {
    let gathered = peers.gather(message(own)).map_err(Failure::Connection)?;
    let size = peers.size();
    if gathered.len() != size {
        let rule = format!("there are {size} processes");
        let error = Error::invalid("number of gathered messages", gathered.len(), rule);
        return Err(Failure::Connection(error));
    }
    (0..).zip(gathered).map(|(rank, message)| opened(rank, message)).collect()
}

/// What rank 0 made, or its failure, on all processes; what the others have is left aside.
///
/// # Errors
/// [`Failure`].
pub fn result_of_first(
    peers: &dyn Peers,
    own: std::result::Result<Vec<u8>, String>,
) -> std::result::Result<Vec<u8>, Failure> {
    opened(0, peers.of_first(message(own)).map_err(Failure::Connection)?)
}

/// What was made, or its error, on its way to the others.
fn message(own: std::result::Result<Vec<u8>, String>) -> Vec<u8> {
    let (mut message, end) = match own {
        Ok(made) => (made, MADE),
        Err(text) => (text.into_bytes(), FAILED),
    };
    message.push(end);
    message
}

/// What is in the message of `rank`.
fn opened(rank: usize, mut message: Vec<u8>) -> std::result::Result<Vec<u8>, Failure> {
    match message.pop() {
        Some(MADE) => Ok(message),
        _ => Err(Failure::At { rank, text: String::from_utf8_lossy(&message).into_owned() }),
    }
}

/// What rank 0 made, or its error, on all processes. What the others made is left aside; an error
/// of theirs is one that rank 0 has too, such as a setting's.
pub(super) fn share_first(peers: &dyn Peers, own: Result<Vec<u8>>) -> Result<Vec<u8>> {
    let (own, error) = apart(own);
    let shared = result_of_first(peers, own);
    match error {
        Some(error) => Err(error),
        None => shared.map_err(|failure| told(failure, peers.size())),
    }
}

/// What every process made, by rank; or the error of the first that failed, on all of them: its
/// own error there, its text and whose it is on the others.
pub(super) fn share(peers: &dyn Peers, own: Result<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    let (own, error) = apart(own);
    gather_results(peers, own).map_err(|failure| match (failure, error) {
        (Failure::At { rank, .. }, Some(error)) if rank == peers.rank() => error,
        (failure, _) => told(failure, peers.size()),
    })
}

/// What goes to the others, and the error that stays.
fn apart(own: Result<Vec<u8>>) -> (std::result::Result<Vec<u8>, String>, Option<Error>) {
    match own {
        Ok(made) => (Ok(made), None),
        Err(error) => (Err(error_chain(&error)), Some(error)),
    }
}

fn told(failure: Failure, size: usize) -> Error {
    match failure {
        Failure::At { rank, text } => Error::Data(format!("rank {rank} of {size}: {text}")),
        Failure::Connection(error) => error,
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
