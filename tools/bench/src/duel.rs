//! One of our worker processes against one of theirs: the same work, checked,
//! then timed in rounds that alternate.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use engine::precision::Precision;
use serde::{Deserialize, Serialize};

use crate::inputs::Inputs;
use crate::inputs::shards::Server;
use crate::peak::{Peak, Roofline};
use crate::protocol::{Ready, Round, Worker};
use crate::stats::Spread;

/// What a round's work is counted in, and how it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Seconds of one training step.
    Step,
    /// Seconds of one forward pass.
    Pass,
    /// Seconds of one evaluation.
    Evaluation,
    /// Seconds of one start.
    Start,
    /// Images a second.
    Images,
}

impl Unit {
    /// Seconds of a unit of work as people are told.
    pub fn tell(self, seconds: f64) -> String {
        match self {
            Self::Images => format!("{} images/s", three_digits(1.0 / seconds)),
            _ if seconds < 0.9995 => format!("{} ms", three_digits(seconds * 1e3)),
            _ => format!("{} s", three_digits(seconds)),
        }
    }
}

/// To three significant digits; whole numbers from 100 on.
pub fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

/// A result that both sides must have, and how far they may be apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Check {
    /// Its name in what workers tell.
    pub name: &'static str,
    /// Largest difference, as a share of the largest value.
    pub tolerance: f64,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// Largest difference, as a share of the largest value.
    pub difference: f64,
    /// What it may be.
    pub tolerance: f64,
}

/// Which program is a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum Program {
    /// This program, as `bench worker`.
    Own,
    /// A script of the folder `python`.
    Script(&'static str),
    /// This program, as `bench worker`, around a script of the folder `python`.
    Around(&'static str),
}

/// A worker and its arguments; where its inputs lie and its threads are added.
#[derive(Debug, Clone, PartialEq)]
pub struct Contender {
    /// What sets it apart from other ways to do the same; may be empty.
    pub label: &'static str,
    /// The program.
    pub program: Program,
    /// Arguments of its own.
    pub arguments: Vec<String>,
}

impl Contender {
    /// With `arguments` separated by blanks.
    pub fn new(label: &'static str, program: Program, arguments: &str) -> Self {
        let arguments = arguments.split_whitespace().map(str::to_owned).collect();
        Self { label, program, arguments }
    }
}

/// A comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Its name on the command line.
    pub name: String,
    /// What is done, for the table.
    pub work: String,
    /// By whom else, for the table.
    pub opponent: String,
    /// What is counted.
    pub unit: Unit,
    /// About how long a round of both takes on two cores, in seconds: weighs
    /// the progress bar.
    pub expected: f64,
    /// What we compute products in; none of work that does not consist of them.
    pub products: Option<Precision>,
    /// What both work on.
    pub inputs: Inputs,
    /// What must agree.
    pub checks: Vec<Check>,
    /// Our worker.
    pub ours: Contender,
    /// Theirs, in several ways of which the fastest is taken.
    pub theirs: Vec<Contender>,
}

/// How duels are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads of each side.
    pub threads: usize,
    /// Timed rounds.
    pub rounds: usize,
    /// Folder of inputs and logs.
    pub folder: PathBuf,
    /// The Python of their scripts.
    pub python: PathBuf,
    /// `bench`, which our workers run.
    pub program: PathBuf,
    /// What the processor reaches with these threads, if it was measured.
    pub peak: Option<Peak>,
}

impl Settings {
    /// A script of the folder `python`, its arguments to be added.
    pub fn script(&self, name: &str) -> Command {
        let mut python = Command::new(&self.python);
        python.arg(script(name));
        python
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}

/// One side's measurements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideTimes {
    /// Seconds of a unit of work, round by round.
    pub rounds: Vec<f64>,
    /// Over the rounds.
    pub seconds: Spread,
    /// Peak memory in megabytes, beyond program and libraries.
    pub peak_mb: f64,
}

impl SideTimes {
    fn of(rounds: &[Round]) -> Result<Self> {
        let seconds: Vec<f64> = rounds.iter().map(Round::seconds_per_work).collect();
        let spread = Spread::of(&seconds).context("no round was timed")?;
        let peak_mb = rounds.iter().map(|round| round.peak_mb).fold(0.0, f64::max);
        Ok(Self { rounds: seconds, seconds: spread, peak_mb })
    }
}

/// What a duel found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundResult {
    /// The fastest way of the other side.
    pub variant: String,
    /// Seconds of a unit of work of each way that was tried.
    pub tried: BTreeMap<String, f64>,
    /// Results that were compared before.
    pub checks: BTreeMap<String, Checked>,
    /// Our side.
    pub ours: SideTimes,
    /// The other side.
    pub theirs: SideTimes,
    /// Their time by ours, of rounds side by side: above 1 where we are faster.
    pub ratio: Spread,
    /// What the work takes at least, where its operations are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roofline: Option<Roofline>,
}

/// How a duel ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name on the command line.
    pub name: String,
    /// What is done.
    pub work: String,
    /// By whom else.
    pub opponent: String,
    /// What is counted.
    pub unit: Unit,
    /// The measurements, unless it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<RoundResult>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Told of every step of a duel.
pub trait Observer {
    /// `what` is going on; `share` of the duel is done.
    fn at(&mut self, what: &str, share: f64);
}

impl Comparison {
    /// Makes the inputs, checks, and times. A failure is part of the outcome.
    pub fn run(&self, settings: &Settings, watcher: &mut dyn Observer) -> Outcome {
        let measured = self.measure(settings, watcher);
        let Self { name, work, opponent, unit, .. } = self;
        let error = measured.as_ref().err().map(|error| format!("{error:#}"));
        Outcome {
            name: name.clone(),
            work: work.clone(),
            opponent: opponent.clone(),
            unit: *unit,
            measured: measured.ok(),
            error,
        }
    }

    fn measure(&self, settings: &Settings, watcher: &mut dyn Observer) -> Result<RoundResult> {
        watcher.at("making what both work on", 0.0);
        self.inputs.make(settings)?;
        let server = self.inputs.serve(settings)?;
        let server = server.as_ref();
        let (theirs, tried) = self.fastest(settings, server, watcher)?;
        watcher.at("starting both", 0.1);
        let mut workers = [
            self.start("ours", &self.ours, settings, server)?,
            self.start("theirs", theirs, settings, server)?,
        ];
        let [ours, theirs_ready] = [workers[0].ready()?, workers[1].ready()?];
        let checks = self.check(&ours, &theirs_ready)?;
        let mut rounds = [Vec::new(), Vec::new()];
        for number in 0..=settings.rounds {
            let share = 0.2 + 0.8 * number as f64 / (settings.rounds + 1) as f64;
            watcher.at(&format!("round {number} of {}", settings.rounds), share);
            // Each goes first in every other round.
            for side in if number % 2 == 0 { [0, 1] } else { [1, 0] } {
                let round = workers[side].round()?;
                // Round 0 warms caches and allocators.
                if number > 0 {
                    rounds[side].push(round);
                }
            }
        }
        let [ours, other] = [SideTimes::of(&rounds[0])?, SideTimes::of(&rounds[1])?];
        let ratio = Spread::of_ratios(&other.rounds, &ours.rounds).context("no round was timed")?;
        let variant = theirs.label.to_owned();
        let speed = settings.peak.as_ref().zip(self.products).map(|(peak, kind)| peak.speed(kind));
        let roofline = theirs_ready.operations.zip(speed).map(|(operations, speed)| {
            Roofline::new(operations, speed, ours.seconds.median, other.seconds.median)
        });
        Ok(RoundResult { variant, tried, checks, ours, theirs: other, ratio, roofline })
    }

    /// Their fastest way, by the better of two rounds after one that warms up,
    /// and what each took.
    fn fastest(
        &self,
        settings: &Settings,
        server: Option<&Server>,
        watcher: &mut dyn Observer,
    ) -> Result<(&Contender, BTreeMap<String, f64>)> {
        let mut tried = BTreeMap::new();
        if let [only] = &self.theirs[..] {
            return Ok((only, tried));
        }
        let mut best: Option<(f64, &Contender)> = None;
        for side in &self.theirs {
            watcher.at(&format!("trying {} {}", self.opponent, side.label), 0.05);
            let mut worker = self.start("theirs", side, settings, server)?;
            worker.ready()?;
            worker.round()?;
            let rounds = [worker.round()?, worker.round()?].map(|round| round.seconds_per_work());
            let seconds = rounds[0].min(rounds[1]);
            tried.insert(side.label.to_owned(), seconds);
            if best.is_none_or(|(least, _)| seconds < least) {
                best = Some((seconds, side));
            }
        }
        let (_, side) = best.context("nobody to compare with")?;
        Ok((side, tried))
    }

    fn start(
        &self,
        who: &str,
        side: &Contender,
        settings: &Settings,
        server: Option<&Server>,
    ) -> Result<Worker> {
        let threads = settings.threads.to_string();
        let mut command = match side.program {
            Program::Own | Program::Around(_) => {
                let mut own = Command::new(&settings.program);
                own.arg("worker").args(&side.arguments);
                own
            }
            Program::Script(name) => settings.script(name),
        };
        command.arg("--inputs").arg(match server {
            Some(server) => server.location.clone(),
            None => self.inputs.path(&settings.folder),
        });
        command.envs(server.into_iter().flat_map(|server| server.env.iter().cloned()));
        command.args(["--threads", &threads]);
        // libtorch's, and those of evaluations.
        command.env("OMP_NUM_THREADS", &threads).env("RAYON_NUM_THREADS", &threads);
        match side.program {
            Program::Own => {}
            Program::Script(_) => {
                command.args(&side.arguments);
            }
            Program::Around(name) => {
                command.arg("--python").arg(&settings.python).arg("--script").arg(script(name));
            }
        }
        let log = settings.folder.join(format!("{}-{who}.log", self.name));
        Worker::start(&format!("{}, {who}", self.name), command, &log)
    }

    /// Compares what both sides found; nothing that differs is timed.
    fn check(&self, ours: &Ready, theirs: &Ready) -> Result<BTreeMap<String, Checked>> {
        let names = || self.checks.iter().map(|check| check.name);
        for (who, ready) in [("our side", ours), ("the other side", theirs)] {
            if let Some(other) = ready.checks.keys().find(|name| !names().any(|n| n == *name)) {
                bail!("{who} tells {other:?}, which is not compared");
            }
        }
        self.checks.iter().map(|check| compare(check, ours, theirs)).collect()
    }
}

fn compare(check: &Check, ours: &Ready, theirs: &Ready) -> Result<(String, Checked)> {
    let Check { name, tolerance } = *check;
    let values = |who: &str, ready: &Ready| {
        let values = ready.checks.get(name).cloned();
        values.with_context(|| format!("{who} does not tell {name:?}, which is compared"))
    };
    let (ours, theirs) = (values("our side", ours)?, values("the other side", theirs)?);
    ensure!(
        ours.len() == theirs.len() && !ours.is_empty(),
        "{name} has {} values on our side and {} on the other, but it must have as many",
        ours.len(),
        theirs.len()
    );
    let apart = || ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs());
    let largest = ours.iter().chain(&theirs).fold(0.0, |most: f64, value| most.max(value.abs()));
    // f64::max leaves out what is not a number.
    let difference = match apart().all(f64::is_finite) {
        true => apart().fold(0.0, f64::max) / largest.max(f64::MIN_POSITIVE),
        false => f64::INFINITY,
    };
    ensure!(
        difference <= tolerance,
        "{name} is {} on our side and {} on the other: they differ by {difference:.1e} of the \
         largest, but at most {tolerance:.0e} is allowed; nothing was timed",
        Shown(&ours),
        Shown(&theirs)
    );
    Ok((name.to_owned(), Checked { difference, tolerance }))
}

/// The first few values.
struct Shown<'a>(&'a [f64]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 4;
        let shown: Vec<String> =
            self.0.iter().take(MOST).map(|value| format!("{value:.6}")).collect();
        write!(f, "{}{}", shown.join(", "), if self.0.len() > MOST { ", …" } else { "" })
    }
}

#[cfg(test)]
mod tests;
