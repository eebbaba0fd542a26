//! Sums from one record to the next.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::StepMetrics;

/// Name of the total in records; a loss that is called so is no part beside it.
const TOTAL: &str = "loss";

/// Sums since the last record.
pub(super) struct Window {
    since: Instant,
    /// Time outside of steps (checkpoints, evaluations), left out of rates.
    paused: Duration,
    pause_began: Option<Instant>,
    images: u64,
    waited: Duration,
    losses: BTreeMap<&'static str, f64>,
    metrics: u64,
}

/// What a window comes to.
pub(super) struct Means {
    /// Sum of the losses' means.
    pub loss: f64,
    /// Mean of each loss, but for one that is called as the total.
    pub parts: BTreeMap<&'static str, f64>,
    pub images_per_second: f64,
    /// This process's share of time without data.
    pub data_wait: f64,
}

impl Window {
    pub fn new() -> Self {
        Self {
            since: Instant::now(),
            paused: Duration::ZERO,
            pause_began: None,
            images: 0,
            waited: Duration::ZERO,
            losses: BTreeMap::new(),
            metrics: 0,
        }
    }

    /// Counts a step of `images` images over all processes, and steps whose numbers were read.
    pub fn add(&mut self, images: u64, waited: Duration, metrics: &[StepMetrics]) {
        self.images += images;
        self.waited += waited;
        for metrics in metrics {
            self.metrics += 1;
            for (name, loss) in &metrics.losses {
                *self.losses.entry(name).or_default() += loss;
            }
        }
    }

    /// Time is left out from here on.
    pub fn pause(&mut self) {
        self.pause_began = Some(Instant::now());
    }

    /// Time counts again.
    pub fn resume(&mut self) {
        if let Some(began) = self.pause_began.take() {
            self.paused += began.elapsed();
        }
    }

    pub fn means(mut self) -> Means {
        let seconds = self.since.elapsed().saturating_sub(self.paused).as_secs_f64().max(1e-9);
        self.losses.values_mut().for_each(|loss| *loss /= self.metrics as f64);
        let loss = self.losses.values().sum();
        self.losses.remove(TOTAL);
        Means {
            loss,
            parts: self.losses,
            images_per_second: self.images as f64 / seconds,
            data_wait: self.waited.as_secs_f64() / seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(losses: &[(&'static str, f64)]) -> StepMetrics {
        let losses = losses.iter().copied().collect();
        StepMetrics { losses, grad_norm: None, step: 1, indices: Vec::new() }
    }

    #[test]
    fn losses_are_means_over_the_steps_that_were_read() {
        let mut window = Window::new();
        window.add(4, Duration::ZERO, &[]);
        let two =
            [metrics(&[("box", 1.0), ("mask", 2.0)]), metrics(&[("box", 3.0), ("mask", 6.0)])];
        window.add(4, Duration::ZERO, &two);
        let means = window.means();
        assert_eq!(means.loss, 6.0);
        assert_eq!(means.parts, [("box", 2.0), ("mask", 4.0)].into());
        let mut window = Window::new();
        window.add(4, Duration::ZERO, &[metrics(&[("loss", 5.0)])]);
        let means = window.means();
        assert_eq!((means.loss, means.parts.len()), (5.0, 0));
    }

    #[test]
    fn rates_leave_pauses_out() {
        let mut window = Window::new();
        window.since = Instant::now() - Duration::from_secs(100);
        window.add(50, Duration::from_secs(5), &[]);
        window.pause_began = Some(Instant::now() - Duration::from_secs(90));
        window.resume();
        let means = window.means();
        assert!((4.9..=5.0).contains(&means.images_per_second), "{}", means.images_per_second);
        assert!((0.49..=0.5).contains(&means.data_wait), "{}", means.data_wait);
    }
}
