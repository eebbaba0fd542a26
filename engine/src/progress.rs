//! How a run is going, on standard error: a bar on a terminal, lines of text
//! every few seconds elsewhere.

mod activity;
mod bar;
mod counter;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use activity::{Activity, during};
pub use bar::Bar;
pub use counter::Counter;

/// Steps that rates are averaged over: enough to smooth single slow steps,
/// few enough to follow a change.
const WINDOW: usize = 50;
/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What a training loop tells after each step.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// The epoch this step belongs to, from 1.
    pub epoch: u64,
    /// The loss, where the loop has read it: that waits for the device. The
    /// last one known is shown.
    pub loss: Option<f64>,
    /// The learning rate.
    pub lr: f64,
    /// Images in this step, over all processes.
    pub images: u64,
    /// How much of the step was spent waiting for data.
    pub wait: Duration,
}

/// Shows the progress of a run.
pub struct Progress {
    steps: u64,
    epochs: u64,
    done: u64,
    loss: Option<f64>,
    meter: Meter,
    started: Instant,
    /// Before the first step.
    waiting: Option<Activity>,
    bar: Bar,
}

impl Progress {
    /// Progress of a run of `epochs` epochs and `steps` steps altogether,
    /// `done` of which an earlier process has made. A bar if standard error
    /// is a terminal.
    pub fn new(epochs: u64, steps: u64, done: u64) -> Self {
        Self::on(Bar::new().waiting(), epochs, steps, done)
    }

    fn on(bar: Bar, epochs: u64, steps: u64, done: u64) -> Self {
        let (meter, started) = (Meter::default(), Instant::now());
        Progress { steps, epochs, done, loss: None, meter, started, waiting: None, bar }
    }

    /// Shows that `what` is being done until the next step is.
    pub fn doing(&mut self, what: &str) {
        self.waiting = Some(Activity::new(what));
    }

    /// Counts a step; the time since the last call, or since the start, is
    /// how long it took.
    pub fn step(&mut self, step: &Step) {
        let now = Instant::now();
        let took = now - std::mem::replace(&mut self.started, now);
        self.advance(step, took);
    }

    fn advance(&mut self, step: &Step, took: Duration) {
        self.waiting = None;
        self.meter.record(took, step.wait, step.images);
        self.done += 1;
        self.loss = step.loss.or(self.loss);
        self.bar.show(self.share(), &self.describe(step));
    }

    /// Marks the end of an epoch, after its last step: a line where there is
    /// no terminal, whenever the last one was.
    pub fn epoch_end(&mut self, step: &Step) {
        self.bar.show_now(self.share(), &self.describe(step));
    }

    /// Starts the clock of the next step now, after work between two epochs
    /// that is no part of a step.
    pub fn skip_time(&mut self) {
        self.started = Instant::now();
    }

    /// Says something without tearing the bar.
    pub fn note(&mut self, text: &str) {
        match &self.waiting {
            Some(activity) if self.bar.is_drawn() => activity.note(text),
            _ => self.bar.note(text),
        }
    }

    /// Says what the next step waits for, behind what was shown last; where there is no terminal no
    /// more often than other lines.
    pub fn waiting(&mut self, text: &str) {
        self.bar.tell(&format!("step {}/{}  {text}", self.done, self.steps));
    }

    /// Leaves the bar as it is and the cursor below it.
    pub fn finish(self) {
        self.bar.leave();
    }

    fn share(&self) -> f64 {
        self.done as f64 / self.steps.max(1) as f64
    }

    fn describe(&self, step: &Step) -> String {
        let mut parts = vec![
            format!("epoch {}/{}", step.epoch, self.epochs),
            format!("step {}/{}", self.done, self.steps),
        ];
        parts.extend(self.loss.map(|loss| format!("loss {loss:.4}")));
        parts.push(format!("lr {:.3e}", step.lr));
        if let Some(rates) = self.meter.rates() {
            let left = rates.step_time.mul_f64(self.steps.saturating_sub(self.done) as f64);
            parts.push(format!("{:.1} images/s", rates.images_per_second));
            parts.push(format!("wait {:.1}%", 100.0 * rates.wait_share));
            parts.push(format!("left {}", clock(left)));
        }
        parts.join("  ")
    }
}

/// Hours, minutes and seconds.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Averages over the last steps.
#[derive(Default)]
struct Meter {
    steps: VecDeque<(Duration, Duration, u64)>,
}

#[derive(Debug, PartialEq)]
struct Rates {
    step_time: Duration,
    images_per_second: f64,
    wait_share: f64,
}

impl Meter {
    fn record(&mut self, took: Duration, waited: Duration, images: u64) {
        if self.steps.len() == WINDOW {
            self.steps.pop_front();
        }
        self.steps.push_back((took, waited, images));
    }

    fn rates(&self) -> Option<Rates> {
        let took: Duration = self.steps.iter().map(|step| step.0).sum();
        if took.is_zero() {
            return None;
        }
        let waited: Duration = self.steps.iter().map(|step| step.1).sum();
        let images: u64 = self.steps.iter().map(|step| step.2).sum();
        Some(Rates {
            step_time: took / self.steps.len() as u32,
            images_per_second: images as f64 / took.as_secs_f64(),
            wait_share: waited.as_secs_f64() / took.as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn rates_are_those_of_the_last_steps() {
        let mut meter = Meter::default();
        assert_eq!(meter.rates(), None);
        meter.record(Duration::from_secs(1000), Duration::ZERO, 1);
        for _ in 0..WINDOW {
            meter.record(Duration::from_secs(2), Duration::from_millis(500), 64);
        }
        let rates = meter.rates().unwrap();
        assert_eq!(rates.step_time, Duration::from_secs(2));
        assert_eq!((rates.images_per_second, rates.wait_share), (32.0, 0.25));
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn lines(&self) -> Vec<String> {
            let bytes = self.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
        }
    }

    fn lines(every: Duration) -> (Progress, Shared) {
        let shared = Shared::default();
        let to = Box::new(shared.clone());
        (Progress::on(Bar::of_lines(to, every).waiting(), 3, 30, 10), shared)
    }

    #[test]
    fn a_line_has_everything_and_keeps_the_last_loss() {
        let (mut progress, shared) = lines(Duration::ZERO);
        let step = Step { epoch: 2, loss: Some(0.51234), lr: 2e-4, images: 360, ..Step::default() };
        let wait = Duration::from_secs(9);
        progress.advance(&Step { wait, ..step.clone() }, Duration::from_secs(90));
        progress.advance(&Step { loss: None, ..step }, Duration::from_secs(90));
        let lines = shared.lines();
        let start = "epoch 2/3  step 11/30  loss 0.5123  lr 2.000e-4  4.0 images/s  wait 10.0%";
        assert_eq!(lines[0], format!("{start}  left 0:28:30"));
        assert!(lines[1].contains("step 12/30  loss 0.5123"), "{}", lines[1]);
    }

    #[test]
    fn lines_come_at_intervals_at_epoch_ends_and_for_notes() {
        let (mut progress, shared) = lines(Duration::from_secs(3600));
        let step = Step { epoch: 1, ..Step::default() };
        progress.step(&step);
        assert!(shared.lines().is_empty());
        progress.epoch_end(&step);
        progress.note("saved");
        assert_eq!(shared.lines().len(), 2);
        assert_eq!(shared.lines()[1], "saved");
    }

    #[test]
    fn a_wait_is_said_as_often_as_other_lines() {
        let (mut progress, shared) = lines(Duration::ZERO);
        progress.waiting("waits 4 s for data: s3://b/a.tar");
        assert_eq!(shared.lines(), ["step 10/30  waits 4 s for data: s3://b/a.tar"]);
        let (mut progress, shared) = lines(Duration::from_secs(3600));
        progress.waiting("waits 4 s for data: s3://b/a.tar");
        assert!(shared.lines().is_empty());
    }

    #[test]
    fn time_between_epochs_can_be_left_out() {
        let (mut progress, _) = lines(Duration::from_secs(3600));
        progress.started = Instant::now() - Duration::from_secs(1000);
        progress.skip_time();
        progress.step(&Step { images: 1, ..Step::default() });
        assert!(progress.meter.rates().unwrap().step_time < Duration::from_secs(500));
    }
}
