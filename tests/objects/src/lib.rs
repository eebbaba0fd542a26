//! Object storage on the loopback interface: an S3 server (`s3s-fs`, whose buckets are folders)
//! that checks signatures, ranges, ETags and uploads in parts, and a proxy before it that delays
//! and spoils answers as a test tells it. Objects can be read without a signature, too, so that
//! clients of plain HTTP find them at `endpoint/bucket/key`.
#![allow(missing_docs)]

mod http;
mod plan;
mod proxy;
mod store;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

pub use http::Request;
use plan::Plan;
pub use plan::{Fault, Rule};
use store::{ACCESS_KEY, SECRET_KEY, Store};
use tempfile::TempDir;

/// A running server with its proxy; both end when dropped.
#[derive(Debug)]
pub struct Objects {
    address: SocketAddr,
    store: Store,
    root: TempDir,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    plan: Mutex<Plan>,
    log: Mutex<Vec<Request>>,
    /// How often the log was emptied.
    emptied: AtomicUsize,
    ends: AtomicBool,
}

impl State {
    fn cleared(&self) -> usize {
        self.emptied.load(Ordering::Relaxed)
    }

    /// Notes the status of the request of this number in the log, if it is still there.
    fn note(&self, (number, emptied): (usize, usize), status: u16) {
        let mut log = locked(&self.log);
        if emptied == self.cleared()
            && let Some(request) = log.get_mut(number)
        {
            request.status = status;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Objects {
    /// Starts both on free ports, with an empty bucket `bucket`.
    ///
    /// # Panics
    /// Where no port or folder is to be had.
    pub fn start() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(root.path().join("bucket")).expect("a bucket");
        let store = Store::start(root.path()).expect("a server");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::<State>::default();
        let (upstream, shared) = (store.address, state.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.ends.load(Ordering::Relaxed) {
                    return;
                }
                let state = shared.clone();
                std::thread::spawn(move || {
                    // Clients break connections off as they like.
                    let _ = proxy::serve(stream, upstream, &state);
                });
            }
        });
        Objects { address, store, root, state, thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT`: what `AWS_ENDPOINT_URL` is to be.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The environment of a client that may read and write.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
        ]
    }

    /// Runs `command` as somebody does who has this environment, and nothing else of AWS's.
    pub fn show_to<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for (name, _) in std::env::vars_os() {
            let upper = name.to_string_lossy().to_uppercase();
            if upper.starts_with("AWS_") || upper.ends_with("_PROXY") {
                command.env_remove(&name);
            }
        }
        command.envs(self.env())
    }

    /// The folder that `bucket` is, which is made.
    ///
    /// # Panics
    /// Where it can't be.
    pub fn bucket(&self, bucket: &str) -> PathBuf {
        let folder = self.root.path().join(bucket);
        std::fs::create_dir_all(&folder).expect("a bucket");
        folder
    }

    /// Puts an object into `bucket`, not by way of the proxy.
    ///
    /// # Panics
    /// Where it can't be written.
    pub fn put(&self, bucket: &str, key: &str, bytes: impl Into<Vec<u8>>) {
        self.bucket(bucket);
        self.store.put(bucket, key, bytes.into()).expect("an object");
    }

    /// Puts all files below `folder` into `bucket`, their names after `prefix`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn upload(&self, bucket: &str, prefix: &str, folder: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let key = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                self.upload(bucket, &format!("{key}/"), &entry.path())?;
            } else {
                self.put(bucket, &key, std::fs::read(entry.path())?);
            }
        }
        Ok(())
    }

    /// The bytes of an object, if there is one.
    pub fn get(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.root.path().join(bucket).join(key)).ok()
    }

    /// The keys in `bucket`, sorted.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        fn add(folder: &Path, prefix: &str, keys: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let key = format!("{prefix}{}", entry.file_name().to_string_lossy());
                match entry.path().is_dir() {
                    true => add(&entry.path(), &format!("{key}/"), keys),
                    false => keys.push(key),
                }
            }
        }
        let mut keys = Vec::new();
        add(&self.root.path().join(bucket), "", &mut keys);
        keys.sort();
        keys
    }

    /// Removes an object.
    ///
    /// # Panics
    /// Where there is none.
    pub fn remove(&self, bucket: &str, key: &str) {
        std::fs::remove_file(self.root.path().join(bucket).join(key)).expect("an object");
    }

    /// `fault` goes wrong with the requests of `rule`. Where several rules meet a request, the
    /// first that is not used up counts.
    pub fn fail(&self, rule: Rule, fault: Fault) {
        locked(&self.state.plan).add(rule, fault);
    }

    /// So long passes before each answer.
    pub fn delay(&self, latency: Duration) {
        locked(&self.state.plan).latency = latency;
    }

    /// Nothing is delayed or goes wrong any more.
    pub fn recover(&self) {
        locked(&self.state.plan).clear();
    }

    /// The requests since the last call, in the order in which they came.
    pub fn requests(&self) -> Vec<Request> {
        let mut log = locked(&self.state.log);
        self.state.emptied.fetch_add(1, Ordering::Relaxed);
        std::mem::take(&mut log)
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        self.state.ends.store(true, Ordering::Relaxed);
        // Wakes the thread, which waits for a connection.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
