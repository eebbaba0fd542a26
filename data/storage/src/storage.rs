//! The handle to everything.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::connect::{Store, connect};
use crate::retry::{Failure, Trying};
use crate::{Error, Location, Pending, Result, Settings, Troubles};

/// Reads, lists and writes objects. A cheap handle: clones share connections and the thread that
/// serves them, which ends with the last.
///
/// All methods block; none must be called from within an asynchronous runtime.
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

struct Inner {
    core: Core,
    runtime: Handle,
    /// Dropped, it ends the thread.
    _stop: oneshot::Sender<()>,
    _thread: JoinHandle<()>,
}

/// What tasks take along.
#[derive(Clone)]
pub(crate) struct Core {
    pub settings: Arc<Settings>,
    pub troubles: Troubles,
    stores: Arc<Mutex<HashMap<String, Store>>>,
}

impl Storage {
    /// A handle; nothing is asked of any store yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings out of range, [`Error::Io`] when no thread can be started.
    pub fn new(settings: Settings) -> Result<Self> {
        settings.check()?;
        // One library may have set what all take already; its choice is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let no_thread = Error::io(Path::new("thread for object storage"));
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return Err(no_thread(error)),
        };
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("storage".into());
        let thread = thread
            .spawn(move || {
                // Ends when the other side is dropped, which is no error here.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_background();
            })
            .map_err(no_thread)?;
        let core = Core {
            settings: Arc::new(settings),
            troubles: Troubles::default(),
            stores: Arc::default(),
        };
        let inner = Inner { core, runtime: handle, _stop: stop, _thread: thread };
        Ok(Storage { inner: Arc::new(inner) })
    }

    /// How patient it is.
    pub fn settings(&self) -> &Settings {
        &self.inner.core.settings
    }

    /// What goes wrong at the moment and is being tried again, in a sentence that names the
    /// object; of several the oldest.
    pub fn trouble(&self) -> Option<String> {
        self.inner.core.troubles.first()
    }

    /// Starts `work` on `at`.
    pub(crate) fn start<T, W>(&self, at: &Location, work: impl FnOnce(Core) -> W) -> Pending<T>
    where
        T: Send + 'static,
        W: Future<Output = Result<T>> + Send + 'static,
    {
        let (send, result) = sync_channel(1);
        let work = work(self.inner.core.clone());
        let task = self.inner.runtime.spawn(async move {
            // Nobody may be waiting any more.
            let _ = send.send(work.await);
        });
        Pending { result, task: task.abort_handle(), at: at.clone() }
    }
}

impl Core {
    /// The store that `at` lies in.
    pub(crate) fn store(&self, at: &Location) -> Result<Store> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(at.store()) {
            return Ok(store.clone());
        }
        let store = connect(at, &self.settings)?;
        stores.insert(at.store().to_owned(), store.clone());
        Ok(store)
    }

    /// What `once` makes in the store of `at`, with the tries of [`Settings`].
    pub(crate) async fn tried<T, W>(
        &self,
        at: &Location,
        what: &str,
        once: impl Fn(Store) -> W,
    ) -> Result<T>
    where
        W: Future<Output = std::result::Result<T, Failure>>,
    {
        let store = self.store(at)?;
        let trying =
            Trying { settings: &self.settings, troubles: &self.troubles, store: &store, at, what };
        trying.run(|| once(store.clone())).await
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("settings", self.settings()).finish_non_exhaustive()
    }
}
