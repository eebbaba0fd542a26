//! How long a run will take, by its first steps, or, where one of these takes long, by a trial
//! before it.

use std::time::Duration;

use anyhow::{Result, bail};
use chrono::{DateTime, Local, TimeDelta};
use data::Loader;
use tch::Device;
use words::counted;

use super::auto::{Machine, gigabytes};
use super::trial::{fixed_bytes, try_pass};
use super::{RunPlan, Task, Trainer};
use crate::settings::TrainSettings as _;

/// Steps are timed for so long, or until there are so many, the first left out: it chooses
/// algorithms and takes memory.
const TIMED: Duration = Duration::from_secs(5);
const ENOUGH: u32 = 20;
const LEAST: u32 = 2;
/// A step that takes longer is enough by itself; one that will is announced before it is made.
const LONG: Duration = Duration::from_secs(20);
/// Images that are tried before the first step, and the least of a step that is worth it.
const TRIED: usize = 2;
const MANY: usize = 4 * TRIED;
/// From here on memory is refused: the trial of few images counts some of it too often.
const FAR_TOO_MUCH: f64 = 1.5;
const DAY: f64 = 24.0 * 3600.0;

/// Finds how long the steps take.
pub(super) struct Estimate {
    first: Option<Duration>,
    sum: Duration,
    steps: u32,
    told: bool,
}

impl Estimate {
    pub fn new() -> Self {
        Self { first: None, sum: Duration::ZERO, steps: 0, told: false }
    }

    /// Counts a step. What one takes, once that is known.
    pub fn step(&mut self, took: Duration) -> Option<Duration> {
        if self.told {
            return None;
        }
        let Some(_) = self.first else {
            self.first = Some(took);
            self.told = took >= LONG;
            return self.told.then_some(took);
        };
        self.sum += took;
        self.steps += 1;
        self.told = self.steps >= ENOUGH || self.steps >= LEAST && self.sum >= TIMED;
        self.told.then(|| self.sum / self.steps)
    }
}

/// What a run takes from now on, as a person is told.
pub(super) fn told<T: Task>(
    task: &T,
    trainer: &Trainer,
    plan: &RunPlan,
    step: Duration,
    done: u64,
) -> String {
    let steps = plan.total_steps.saturating_sub(done);
    let image = step.as_secs_f64() / trainer.batch_size as f64;
    let seconds = steps as f64 * step.as_secs_f64() + task.evaluation_images(plan, done) * image;
    let now = Local::now();
    let mut text = describe(seconds, steps, step.as_secs_f64(), now);
    if trainer.device == Device::Cpu && seconds > DAY {
        text += &format!("\nthat is long for a processor: {}", T::SHORTER);
    }
    text
}

/// "about 3 h 20 min (12,000 steps of 1.0 s), until 14:05".
fn describe(seconds: f64, steps: u64, step: f64, now: DateTime<Local>) -> String {
    let steps = format!("{} of {}", counted(steps, "step"), precise(step));
    let until = TimeDelta::try_milliseconds((seconds * 1000.0) as i64)
        .and_then(|time| now.checked_add_signed(time))
        .map(|end| format!(", until {}", clock(end, now)));
    format!("about {} ({steps}){}", span(seconds), until.unwrap_or_default())
}

/// The time of day, with as much of the date as it takes.
fn clock(end: DateTime<Local>, now: DateTime<Local>) -> String {
    let days = (end.date_naive() - now.date_naive()).num_days();
    let form = match days {
        0 => "%H:%M",
        1..7 => "%a %H:%M",
        _ => "%-d %b %Y",
    };
    end.format(form).to_string()
}

/// A length of time in its two largest units.
pub fn span(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (minutes, hours) = (whole.div_ceil(60), whole as f64 / 3600.0);
    match whole {
        0..=90 => format!("{} s", whole.max(1)),
        91..3600 => format!("{minutes} min"),
        3600..86_400 => match minutes % 60 {
            0 => format!("{} h", minutes / 60),
            rest => format!("{} h {rest} min", minutes / 60),
        },
        _ => {
            let hours = hours.round() as u64;
            let days = counted(hours / 24, "day");
            match hours % 24 {
                0 => days,
                _ if hours >= 240 => days,
                rest => format!("{days} {rest} h"),
            }
        }
    }
}

/// What a step takes, to two digits.
fn precise(seconds: f64) -> String {
    match seconds {
        0.0..0.1 => format!("{:.3} s", seconds),
        0.1..1.0 => format!("{seconds:.2} s"),
        1.0..20.0 => format!("{seconds:.1} s"),
        _ => span(seconds),
    }
}

/// Before the first step of a run on a processor: what it will take, if that is long. All processes
/// call.
///
/// # Errors
/// Images that cannot be read, a pass that cannot be made, and memory that a step would take and
/// nobody has.
pub(super) fn foresee<T: Task>(
    task: &T,
    trainer: &mut Trainer,
    loader: &Loader<T::Source>,
    plan: &RunPlan,
    done: u64,
) -> Result<Option<Duration>> {
    let own = trainer.batch_size / trainer.world.size();
    if trainer.device != Device::Cpu || own < MANY || done >= plan.total_steps {
        return Ok(None);
    }
    let part = trainer.micro_batch_size;
    let tried = TRIED.min(part);
    let (epoch, step) = (done / plan.steps_per_epoch, done % plan.steps_per_epoch);
    trainer.micro_batch_size = tried;
    let pass = || -> Result<Option<(f64, Option<usize>)>> {
        let few = loader.first_of(epoch, step, tried)?;
        let first = task.micro_batches(trainer, few, done)?.into_iter().next();
        first.map(|part| try_pass(task, trainer, part)).transpose()
    };
    // The first chooses algorithms and takes memory, as the first step does. All processes make
    // both: they may share statistics.
    let passed = pass().and_then(|_| pass());
    trainer.micro_batch_size = part;
    let Some((seconds, bytes)) = passed? else { return Ok(None) };
    let memory = Machine::of(task.settings().execution(), &trainer.world)?.memory;
    if let Some((bytes, free)) = bytes.zip(memory) {
        let fixed = fixed_bytes(trainer);
        let image = (bytes as u64).saturating_sub(fixed) / tried as u64;
        Memory { own, part, image, fixed, free }.check()?;
    }
    let step = Duration::from_secs_f64(seconds * own as f64 / tried as f64);
    Ok((step >= LONG).then_some(step))
}

/// What a step computes at a time, and in which memory.
struct Memory {
    /// Images of this process in a step, and those that are computed at a time.
    own: usize,
    part: usize,
    /// Bytes of an image, and of what is there whatever the images.
    image: u64,
    fixed: u64,
    /// Bytes that are free.
    free: u64,
}

impl Memory {
    fn needed(&self, part: usize) -> u64 {
        self.fixed + self.image * part as u64
    }

    /// Refuses a step that memory cannot hold.
    fn check(&self) -> Result<()> {
        if self.needed(self.part) as f64 <= FAR_TOO_MUCH * self.free as f64 {
            return Ok(());
        }
        let own = self.own;
        let fitting = (1..=own)
            .filter(|parts| own.is_multiple_of(*parts))
            .find(|parts| self.needed(own / parts) <= self.free / 10 * 6);
        let begin = format!(
            "a step computes {} at a time, which takes about {} of memory, and {} are free",
            counted(self.part, "image"),
            gigabytes(self.needed(self.part)),
            gigabytes(self.free)
        );
        match fitting {
            Some(parts) => bail!("{begin}; give --accum-steps {parts}: {} at a time", own / parts),
            None => bail!("{begin}; give a smaller --model or --input-size"),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;

    fn after(estimate: &mut Estimate, seconds: &[f64]) -> Option<f64> {
        let steps = seconds.iter().map(|&took| Duration::from_secs_f64(took));
        steps.filter_map(|took| estimate.step(took)).map(|step| step.as_secs_f64()).next()
    }

    #[test]
    fn the_first_step_is_left_out_unless_it_is_long() {
        assert_eq!(after(&mut Estimate::new(), &[9.0, 3.0]), None);
        assert_eq!(after(&mut Estimate::new(), &[9.0, 3.0, 2.0, 1.0]), Some(2.5));
        assert_eq!(after(&mut Estimate::new(), &[30.0]), Some(30.0));
        let mut quick = vec![1.0];
        quick.extend([0.125; 25]);
        let mut estimate = Estimate::new();
        assert_eq!(after(&mut estimate, &quick[..20]), None);
        assert_eq!(after(&mut estimate, &quick[20..]), Some(0.125));
        assert_eq!(after(&mut estimate, &[60.0]), None, "it is told once");
    }

    /// It would end the process, or others on the machine, without a word.
    #[test]
    fn a_step_that_no_memory_holds_is_refused_with_what_would_fit() {
        let (image, fixed, free) = (50_000_000, 400_000_000, 20_000_000_000);
        let check = |own, part, fixed| Memory { own, part, image, fixed, free }.check();
        assert!(check(4096, 512, fixed).is_ok(), "it may fit: few images count some of it twice");
        let error = check(4096, 4096, fixed).unwrap_err().to_string();
        let rule = "a step computes 4,096 images at a time, which takes about 205.2 GB of memory, \
                    and 20.0 GB are free; give --accum-steps 32: 128 at a time";
        assert_eq!(error, rule);
        let error = check(4096, 4096, free).unwrap_err().to_string();
        assert!(error.ends_with("give a smaller --model or --input-size"), "{error}");
    }

    #[test]
    fn lengths_are_told_in_two_units() {
        let hours = 3600.0;
        for (seconds, text) in [
            (0.2, "1 s"),
            (45.4, "45 s"),
            (600.0, "10 min"),
            (hours, "1 h"),
            (3.0 * hours + 1200.0, "3 h 20 min"),
            (26.0 * hours, "1 day 2 h"),
            (72.0 * hours, "3 days"),
            (1000.0 * hours, "41 days"),
            (1e6 * hours, "41,666 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn the_end_is_told_by_the_clock() {
        let now = Local.with_ymd_and_hms(2026, 3, 2, 10, 45, 0).unwrap();
        let hours = 3600.0;
        let told = |seconds| describe(seconds, 12_000, 1.0, now);
        let text = told(3.0 * hours + 1200.0);
        assert_eq!(text, "about 3 h 20 min (12,000 steps of 1.0 s), until 14:05");
        assert!(told(20.0 * hours).ends_with(", until Tue 06:45"), "{}", told(20.0 * hours));
        assert!(told(480.0 * hours).ends_with(", until 22 Mar 2026"));
        // Longer than a calendar goes.
        assert!(!told(1e300).contains("until"));
        assert_eq!(describe(1.0, 1, 0.034, now), "about 1 s (1 step of 0.034 s), until 10:45");
    }
}
