//! How many of a number of things are done.

use std::time::{Duration, Instant};

use words::{counted, grouped};

use super::{Bar, clock};

/// Shows how many of a known number of things are done.
pub struct Counter {
    what: String,
    total: u64,
    /// By an earlier process.
    before: u64,
    done: u64,
    started: Instant,
    bar: Bar,
}

impl Counter {
    /// None of `total` done; `what` is one of them ("image"). A bar if standard
    /// error is a terminal, else lines of text every few seconds.
    pub fn new(what: impl Into<String>, total: u64) -> Self {
        let (started, bar) = (Instant::now(), Bar::new().waiting());
        Self { what: what.into(), total, before: 0, done: 0, started, bar }
    }

    /// `before` of them are done already, by an earlier process.
    pub fn resumed(self, before: u64) -> Self {
        Self { before, done: before, ..self }
    }

    /// Counts `more`.
    pub fn add(&mut self, more: u64) {
        self.done += more;
        let share = self.done as f64 / self.total.max(1) as f64;
        self.bar.show(share, &self.describe());
    }

    /// Says something without tearing the bar.
    pub fn note(&mut self, text: &str) {
        self.bar.note(text);
    }

    /// Leaves a line with the number and the rate.
    pub fn finish(self) {
        let text = self.describe();
        self.bar.finish();
        eprintln!("{text}");
    }

    fn describe(&self) -> String {
        let took = self.started.elapsed().as_secs_f64().max(1e-9);
        let rate = (self.done - self.before) as f64 / took;
        if self.total == 0 {
            return format!("{}  {rate:.1}/s", counted(self.done, &self.what));
        }
        let (done, total) = (grouped(self.done), counted(self.total, &self.what));
        let text = format!("{done}/{total}  {rate:.1}/s");
        match self.total.checked_sub(self.done) {
            Some(left) if left > 0 && rate > 0.0 => {
                let left = Duration::try_from_secs_f64(left as f64 / rate).unwrap_or(Duration::MAX);
                format!("{text}  left {}", clock(left))
            }
            _ => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_not_several() {
        let told = |total: u64| {
            let mut counter = Counter::new("image", total);
            counter.add(1);
            counter.describe()
        };
        assert!(told(0).starts_with("1 image  "), "{}", told(0));
        assert!(told(1).starts_with("1/1 image  "), "{}", told(1));
        assert!(told(2).starts_with("1/2 images  "), "{}", told(2));
    }
}
