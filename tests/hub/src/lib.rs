//! A hub on the loopback interface that speaks what huggingface_hub asks of one: `resolve`
//! addresses, redirects to a second port in the part of the CDN, lists of files; and that fails
//! as it is told. Reference: the answers of the hub to huggingface_hub `file_download.py`,
//! `utils/_http.py`.
#![allow(missing_docs)]

mod http;
mod repos;
mod use_it;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use http::Reply;
pub use http::Request;
use repos::Repos;
pub use repos::{Access, File, Repo, git_hash, sha256};
pub use use_it::show_to;

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Hub,
    Cdn,
}

/// What goes wrong with one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A status, with the seconds of `Retry-After`.
    Status(u16, Option<u64>),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// So many bytes more than there are, announced and sent.
    TooLong(usize),
    /// The last byte is another.
    WrongByte,
    /// The whole file, whatever range was asked for.
    NoRange,
    /// Nothing for so long, then the end of the connection.
    Silence(Duration),
    /// A redirect to this address.
    Redirect(String),
    /// A header of the answer has this value.
    Header(&'static str, String),
    /// Nothing goes wrong.
    None,
}

/// A running hub; it ends when dropped.
#[derive(Debug)]
pub struct Hub {
    addresses: [SocketAddr; 2],
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    repos: Mutex<Repos>,
    faults: Mutex<VecDeque<(Side, Fault)>>,
    log: Mutex<Vec<Request>>,
    ends: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Hub {
    /// Starts it on two free ports.
    pub fn start() -> Self {
        let listeners: [TcpListener; 2] =
            std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
        let addresses = std::array::from_fn(|i| listeners[i].local_addr().expect("an address"));
        let state = Arc::new(State {
            repos: Mutex::default(),
            faults: Mutex::default(),
            log: Mutex::default(),
            ends: AtomicBool::new(false),
        });
        let cdn = format!("http://{}", addresses[1]);
        let threads = listeners.into_iter().zip([Side::Hub, Side::Cdn]).map(|(listener, side)| {
            let (state, cdn) = (state.clone(), cdn.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if state.ends.load(Ordering::Relaxed) {
                        return;
                    }
                    let (state, cdn) = (state.clone(), cdn.clone());
                    std::thread::spawn(move || {
                        // Clients break connections off as they like.
                        let _ = answer(stream, side, &state, &cdn);
                    });
                }
            })
        });
        Hub { addresses, threads: threads.collect(), state }
    }

    /// What `HF_ENDPOINT` is to be.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addresses[0])
    }

    /// Changes the repository `owner/name`, which begins empty.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Repo)) {
        change(locked(&self.state.repos).entry(id));
    }

    /// What goes wrong with the next requests to `side`, one after the other.
    pub fn fail(&self, side: Side, faults: impl IntoIterator<Item = Fault>) {
        locked(&self.state.faults).extend(faults.into_iter().map(|fault| (side, fault)));
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut locked(&self.state.log))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.state.ends.store(true, Ordering::Relaxed);
        for (address, thread) in self.addresses.iter().zip(self.threads.drain(..)) {
            // Wakes the thread, which waits for a connection.
            let _ = TcpStream::connect_timeout(address, Duration::from_secs(1));
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, side: Side, state: &State, cdn: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let Some(request) = Request::read(&mut stream, side)? else { return Ok(()) };
    locked(&state.log).push(request.clone());
    let fault = {
        let mut faults = locked(&state.faults);
        let next = faults.iter().position(|(at, _)| *at == side);
        next.and_then(|next| faults.remove(next)).map_or(Fault::None, |(_, fault)| fault)
    };
    let ranged = !matches!(fault, Fault::NoRange);
    let mut reply = match side {
        Side::Hub => locked(&state.repos).reply(&request, cdn, ranged),
        Side::Cdn => locked(&state.repos).blob(&request, ranged),
    };
    let mut end = usize::MAX;
    match fault {
        Fault::Status(code, after) => {
            reply = Reply::status(code);
            reply.headers.extend(after.map(|after| ("Retry-After".to_owned(), after.to_string())));
        }
        Fault::Redirect(target) => reply = Reply::status(302).with("Location", target),
        Fault::Header(name, value) => reply.set(name, value),
        Fault::TooLong(more) => reply.body.extend(vec![0; more]),
        Fault::WrongByte => reply.body.iter_mut().rev().take(1).for_each(|byte| *byte ^= 1),
        Fault::Silence(time) => {
            std::thread::sleep(time);
            return Ok(());
        }
        Fault::Cut(bytes) => end = bytes,
        Fault::NoRange | Fault::None => {}
    }
    stream.write_all(reply.head().as_bytes())?;
    if request.method != "HEAD" {
        stream.write_all(&reply.body[..end.min(reply.body.len())])?;
    }
    stream.flush()
}
