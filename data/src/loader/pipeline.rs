//! The threads behind an iterator of batches, and what they share.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::dataset::Fetch;
use super::sample::SampleMaker;
use super::source::{SampleIndex, Source};
use super::{Batch, LoaderOptions};
use crate::{Error, Result};

/// Threads filling a queue of batches.
pub(super) struct Pipeline<S: Source> {
    shared: Arc<Shared<S>>,
    threads: Vec<JoinHandle<()>>,
    /// Since when a batch is waited for.
    asked: Option<Instant>,
}

struct Shared<S: Source> {
    maker: Arc<SampleMaker<S>>,
    prefetch: usize,
    queue: Mutex<Queue<S>>,
    /// There may be something to do for a worker.
    work: Condvar,
    /// The first batch may be complete, or there is an error.
    ready: Condvar,
}

struct Queue<S: Source> {
    /// Opened and not handed out, the next to be handed out first.
    open: VecDeque<Arc<BatchBuilder<S>>>,
    /// First sample of the last open batch that no worker has taken yet.
    next_sample: usize,
    /// Batches that are not opened yet, of which something may be on its way.
    planned: VecDeque<Plan>,
    /// (epoch, step) of batches still to be planned.
    next_step: (u64, u64),
    end_epoch: u64,
    failure: Option<Error>,
    stopped: bool,
}

/// How many bytes are fetched ahead, beyond the batches in work: no more batches are planned then.
const MOST_AHEAD: u64 = 256 << 20;

/// What a batch is to be made of.
struct Plan {
    epoch: u64,
    step: u64,
    samples: Vec<SampleIndex>,
    /// What was begun for each.
    begun: Vec<Option<Fetch>>,
}

/// A batch in the making.
struct BatchBuilder<S: Source> {
    epoch: u64,
    step: u64,
    planned: Vec<SampleIndex>,
    /// What was begun for each sample, until it is taken.
    begun: Mutex<Vec<Option<Fetch>>>,
    missing: AtomicUsize,
    filled: Mutex<Filled<S>>,
}

struct Filled<S: Source> {
    /// Taken when the batch is handed out.
    images: Option<S::Images>,
    /// The slots whose sample was made, with the index of the image taken.
    slots: Vec<Option<SampleIndex>>,
}

impl<S: Source> Pipeline<S> {
    pub(super) fn start(
        maker: &Arc<SampleMaker<S>>,
        options: &LoaderOptions,
        epochs: Range<u64>,
        start_step: u64,
    ) -> Self {
        let next_step = match maker.source.steps() {
            // Nothing to load, as after the last epoch.
            0 => (epochs.end, 0),
            // A run that stopped at the end of an epoch goes on with the next.
            steps => (epochs.start + start_step / steps, start_step % steps),
        };
        let queue = Queue {
            open: VecDeque::new(),
            next_sample: 0,
            planned: VecDeque::new(),
            next_step,
            end_epoch: epochs.end,
            failure: None,
            stopped: false,
        };
        let shared = Arc::new(Shared {
            maker: Arc::clone(maker),
            prefetch: options.prefetch,
            queue: Mutex::new(queue),
            work: Condvar::new(),
            ready: Condvar::new(),
        });
        let mut threads = Vec::new();
        for number in 0..options.threads {
            let worker = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("loader-{number}"));
            match thread.spawn(move || worker.run()) {
                Ok(thread) => threads.push(thread),
                // Fewer threads than asked for give the same batches, only later.
                Err(e) if !threads.is_empty() => {
                    tracing::warn!("only {number} loader threads could be started: {e}");
                    break;
                }
                Err(e) => {
                    let text = format!("no loader thread could be started: {e}");
                    shared.lock().failure = Some(Error::Data(text));
                    break;
                }
            }
        }
        Pipeline { shared, threads, asked: None }
    }

    pub(super) fn next_batch(&mut self) -> Option<Result<Batch<S::Images>>> {
        let asked = self.asked.take().unwrap_or_else(Instant::now);
        let mut queue = self.shared.lock();
        loop {
            // After the first error there is nothing more, whatever a worker that was at it then
            // has found since.
            if queue.stopped {
                return None;
            }
            if let Some(failure) = queue.failure.take() {
                queue.stopped = true;
                return Some(Err(failure));
            }
            if queue.is_exhausted() {
                return None;
            }
            if let Some(assembly) = queue.pop_complete() {
                drop(queue);
                self.shared.work.notify_all();
                return Some(Ok(assembly.finish(asked.elapsed())));
            }
            queue = self.shared.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<S: Source> Pipeline<S> {
    /// Waits until there is a next batch, or none will come, but no longer than `patience`: whether
    /// that is so.
    pub(super) fn is_ready_within(&mut self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        self.asked.get_or_insert_with(Instant::now);
        let mut queue = self.shared.lock();
        while !queue.is_ready() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.ready.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// What is missing of the next batch, in a sentence.
    pub(super) fn waits_for(&self) -> Option<String> {
        let source = &self.shared.maker.source;
        if let Some(trouble) = source.trouble() {
            return Some(trouble);
        }
        let next = self.shared.lock().open.front().cloned()?;
        let missing = next.lock().slots.iter().position(Option::is_none)?;
        Some(source.name(next.planned[missing].index))
    }
}

impl<S: Source> Drop for Pipeline<S> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A worker that panicked has already been reported on standard error.
            let _ = thread.join();
        }
    }
}

impl<S: Source> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, Queue<S>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut sample = S::Sample::default();
        while let Some((assembly, place)) = self.next_task() {
            let begun = assembly.take_begun(place);
            match self.maker.make(assembly.planned[place], assembly.epoch, begun, &mut sample) {
                Ok(index) => {
                    if assembly.fill(&self.maker.source, place, index, &mut sample) {
                        // Taking the lock orders this after a check that found it incomplete.
                        drop(self.lock());
                        self.ready.notify_all();
                    }
                }
                Err(failure) => {
                    let mut queue = self.lock();
                    queue.failure.get_or_insert(failure);
                    drop(queue);
                    self.ready.notify_all();
                    self.work.notify_all();
                }
            }
        }
    }

    /// The next sample to make and its batch, once there is room for it; none when all is done.
    fn next_task(&self) -> Option<(Arc<BatchBuilder<S>>, usize)> {
        let mut queue = self.lock();
        loop {
            if queue.stopped || queue.failure.is_some() {
                return None;
            }
            if let Some(task) = queue.take_sample() {
                return Some(task);
            }
            if queue.is_all_opened() {
                return None;
            }
            if queue.open.len() < self.prefetch {
                queue.plan(&self.maker.source, 1);
                let plan = queue.planned.pop_front()?;
                queue.open.push_back(Arc::new(BatchBuilder::new(&self.maker.source, plan)));
                queue.next_sample = 0;
                queue.plan(&self.maker.source, self.maker.source.ahead());
                // One worker opens a batch; the others have samples of it to take.
                self.work.notify_all();
                continue;
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<S: Source> Queue<S> {
    fn take_sample(&mut self) -> Option<(Arc<BatchBuilder<S>>, usize)> {
        let last = self.open.back()?;
        let place = self.next_sample;
        if place == last.planned.len() {
            return None;
        }
        self.next_sample += 1;
        Some((Arc::clone(last), place))
    }

    fn pop_complete(&mut self) -> Option<Arc<BatchBuilder<S>>> {
        let complete = self.open.front()?.missing.load(Ordering::Acquire) == 0;
        if complete { self.open.pop_front() } else { None }
    }

    /// Whether there is something to hand out: a batch, an error or the end.
    fn is_ready(&self) -> bool {
        let is_complete = |batch: &Arc<BatchBuilder<S>>| batch.missing.load(Ordering::Acquire) == 0;
        self.stopped
            || self.failure.is_some()
            || self.is_exhausted()
            || self.open.front().is_some_and(is_complete)
    }

    /// Plans batches, and begins what they are made of, until `samples` are planned or all.
    fn plan(&mut self, source: &S, samples: usize) {
        let mut planned: usize = self.planned.iter().map(|plan| plan.samples.len()).sum();
        let begun = self.planned.iter().flat_map(|plan| plan.begun.iter().flatten());
        let mut bytes: u64 = begun.map(Fetch::size).sum();
        let fits = |planned, bytes| planned == 0 || bytes < MOST_AHEAD;
        while planned < samples && fits(planned, bytes) && self.next_step.0 < self.end_epoch {
            let (epoch, step) = self.next_step;
            let samples = source.plan(epoch, step);
            let begun: Vec<Option<Fetch>> =
                samples.iter().map(|sample| source.begin(sample.index)).collect();
            planned += samples.len().max(1);
            bytes += begun.iter().flatten().map(Fetch::size).sum::<u64>();
            self.planned.push_back(Plan { epoch, step, samples, begun });
            let last = step + 1 == source.steps();
            self.next_step = if last { (epoch + 1, 0) } else { (epoch, step + 1) };
        }
    }

    fn is_all_opened(&self) -> bool {
        self.planned.is_empty() && self.next_step.0 >= self.end_epoch
    }

    fn is_exhausted(&self) -> bool {
        self.open.is_empty() && self.is_all_opened()
    }
}

impl<S: Source> BatchBuilder<S> {
    fn new(source: &S, plan: Plan) -> Self {
        let Plan { epoch, step, samples: planned, begun } = plan;
        let images = Some(source.open(planned.len()));
        BatchBuilder {
            epoch,
            step,
            begun: Mutex::new(begun),
            missing: AtomicUsize::new(planned.len()),
            filled: Mutex::new(Filled { images, slots: vec![None; planned.len()] }),
            planned,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Filled<S>> {
        self.filled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_begun(&self, place: usize) -> Option<Fetch> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun[place].take()
    }

    /// Puts a sample, made of image `index` if any, in its place; true when it was the last one
    /// missing.
    fn fill(&self, source: &S, place: usize, index: Option<usize>, sample: &mut S::Sample) -> bool {
        let mut filled = self.lock();
        let Filled { images, slots } = &mut *filled;
        if let (Some(index), Some(images)) = (index, images) {
            let slot = SampleIndex { index, ..self.planned[place] };
            source.put(images, place, slot, sample);
            slots[place] = Some(slot);
        }
        drop(filled);
        self.missing.fetch_sub(1, Ordering::AcqRel) == 1
    }

    fn finish(&self, waited: Duration) -> Batch<S::Images> {
        let mut filled = self.lock();
        let images = filled.images.take().expect("a batch is handed out once");
        let made = || filled.slots.iter().flatten();
        Batch {
            epoch: self.epoch,
            step: self.step,
            images,
            indices: made().map(|slot| slot.index).collect(),
            positions: made().map(|slot| slot.position).collect(),
            waited,
        }
    }
}
