//! The thread that uploads what a run saves, while the run goes on.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use std::sync::atomic::Ordering;

use words::counted;

use super::snapshot::Snapshot;
use super::upload::{Progress, Trouble, Uploader};
use crate::remote::bar;
use crate::{Error, Result};

/// How often the bar is brought up to date.
const TICK: Duration = Duration::from_millis(100);

/// Keeps a run's copy in storage as new as its last checkpoint.
pub struct Mirror {
    shared: Arc<Shared>,
    /// The run as a person names it, and the folder that it works in.
    name: String,
    folder: PathBuf,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct State {
    /// Snapshots taken.
    number: u64,
    /// What is to be uploaded next, with the number of epochs' checkpoints to keep. A newer one
    /// replaces it.
    next: Option<(Snapshot, usize)>,
    /// No more will follow.
    closed: bool,
    /// Why the latest upload failed, if it did.
    failed: Option<String>,
    /// Why nothing more is uploaded.
    taken_over: Option<String>,
    /// What is still to be told.
    notes: Vec<String>,
    /// Files uploaded.
    files: usize,
}

impl Mirror {
    /// Begins; nothing is uploaded before the first [`Mirror::save`].
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(uploader: Uploader) -> Result<Self> {
        let (name, folder) = (uploader.name(), uploader.folder().to_owned());
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            progress: Arc::default(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("upload".into());
        let thread = thread
            .spawn(move || own.work(uploader))
            .map_err(|e| Error::data(format!("no thread can be started: {e}")))?;
        Ok(Mirror { shared, name, folder, thread: Mutex::new(Some(thread)) })
    }

    /// Has the run uploaded as it is now, without waiting for it.
    ///
    /// # Errors
    /// Another process writes to the run; a folder that can't be read.
    pub fn save(&self, keep: usize) -> Result<()> {
        let mut state = self.shared.state();
        if let Some(why) = &state.taken_over {
            return Err(Error::data(why.clone()));
        }
        state.number += 1;
        let snapshot = Snapshot::take(&self.folder, state.number)?;
        state.next = Some((snapshot, keep));
        self.shared.changed.notify_all();
        Ok(())
    }

    /// What there is to tell since the last time.
    pub fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().notes)
    }

    /// Uploads the run as it was left, and waits for that. `outcome` is how the run ended; what
    /// could not be uploaded is told with it.
    ///
    /// # Errors
    /// Those of `outcome`; a run that is not in storage whole: the message says where it is.
    pub fn finish(&self, outcome: anyhow::Result<()>, keep: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        let saved = self.save(keep);
        self.close();
        self.wait();
        for note in self.notes() {
            eprintln!("{note}");
        }
        let state = self.shared.state();
        let failed = saved.err().map(|error| error.to_string()).or_else(|| state.failed.clone());
        let Some(failed) = failed else {
            let seconds = began.elapsed().as_secs_f64();
            eprintln!(
                "uploaded to {} ({}, the last in {seconds:.1} s)",
                self.name,
                counted(state.files, "file")
            );
            return outcome;
        };
        if let (Some(why), Ok(())) = (&state.taken_over, &outcome) {
            return Err(anyhow::anyhow!("{why}"));
        }
        if state.taken_over.is_some() {
            return outcome;
        }
        let whole = is_kept(&self.name, &failed, &self.folder);
        match outcome {
            Ok(()) => Err(anyhow::anyhow!(
                "{whole}; once that is mended, the same command with --resume uploads it"
            )),
            Err(error) => Err(anyhow::anyhow!("{error:#}; besides, {whole}")),
        }
    }

    fn close(&self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_all();
    }

    /// Waits for the thread, with a bar on a terminal.
    fn wait(&self) {
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let mut shown = None;
        while !thread.is_finished() {
            let progress = &self.shared.progress;
            let total = progress.total.load(Ordering::Relaxed);
            if total > 0 {
                let shown = shown.get_or_insert_with(|| bar(&self.name, total));
                shown.set_length(total);
                shown.set_position(progress.done.load(Ordering::Relaxed));
            }
            std::thread::sleep(TICK);
        }
        if let Some(bar) = shown {
            bar.finish_and_clear();
        }
        if thread.join().is_err() {
            self.shared.state().failed = Some("the thread that uploads has broken off".into());
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uploads one snapshot after the other.
    fn work(&self, mut uploader: Uploader) {
        while let Some((snapshot, keep)) = self.next() {
            let outcome = uploader.upload(&snapshot, keep, &self.progress);
            drop(snapshot);
            let mut state = self.state();
            match outcome {
                Ok(files) => {
                    if state.failed.take().is_some() {
                        state.notes.push(format!("uploaded to {} again", uploader.name()));
                    }
                    state.files += files;
                }
                Err(Trouble::Failed(error)) => {
                    let kept = is_kept(&uploader.name(), &error, uploader.folder());
                    if !state.closed {
                        state.notes.push(format!("{kept}, and uploaded with the next checkpoint"));
                    }
                    state.failed = Some(error.to_string());
                }
                Err(Trouble::TakenOver(error)) => {
                    state.taken_over = Some(error.to_string());
                    state.failed = Some(error.to_string());
                    return;
                }
            }
        }
    }

    /// What to upload next, once there is something; none at the end.
    fn next(&self) -> Option<(Snapshot, usize)> {
        let mut state = self.state();
        loop {
            if let Some(next) = state.next.take() {
                return Some(next);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn is_kept(name: &str, failed: &dyn Display, folder: &std::path::Path) -> String {
    format!("{name} is not up to date ({failed}); the run is kept in {}", folder.display())
}
