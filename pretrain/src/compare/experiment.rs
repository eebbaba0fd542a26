//! The comparison from its settings to its report.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use data::{Dataset, DatasetOptions, write_file};
use engine::interrupt::watch_for_interrupts;
use engine::outputs::{lies_in, print_written};
use engine::run_dir::{RunDir, display_path};
use serde_json::Value;
use toml::Table;
use words::counted;

use super::clock::Clock;
use super::labelled::{Labelled, Part, share_name};
use super::measure::{self, Sample};
use super::picture;
use super::plan::{Cost, Epochs, Plan, Wishes};
use super::programs::{Ended, METRICS, Program, Training};
use super::report::Document;
use super::results::{Outcome, Progress, is_unplanned};
use super::runs::{
    Arm, Figure, Flags, OF_CLASSES, OF_OBJECTS, PRETRAINING, Tuning, epochs_of, model_of, tunings,
};
use super::settings::CompareSettings;
use crate::picture::png;

/// Where a comparison begins and ends.
#[derive(Debug, Clone, Copy)]
pub struct Begin {
    /// Go on with the one in the folder.
    pub resume: bool,
    /// Delete the one in the folder.
    pub overwrite: bool,
    /// Measure and print the plan, and no more.
    pub plan_only: bool,
}

/// Compares and reports.
///
/// # Errors
/// Data that nothing can be learned from, a budget that is too small, a run that fails, an
/// interrupt: what is finished then stays, and `--resume` goes on.
pub fn run(settings: &CompareSettings, begin: Begin) -> Result<()> {
    let labelled = Labelled::open(&settings.labelled)?;
    let programs = [Program::beside("pretrain")?, Program::beside(labelled.program())?];
    let [own, tuning] = settings.flags()?;
    let flags =
        Flags { settings, labelled: &labelled, preset: settings.preset()?, own: [own, tuning] };
    let bases = Bases::of(&flags, &programs)?;
    let options = DatasetOptions::with_channels(bases.channels);
    let unlabelled = Dataset::open(&settings.data, &options)
        .with_context(|| format!("cannot pretrain on --data {}", display_path(&settings.data)))?;
    let overwrite = begin.overwrite || !begin.resume && is_unplanned(&settings.output);
    let folder = RunDir::create(&settings.output, overwrite, begin.resume)?;
    let text = toml::to_string_pretty(settings)?;
    write_file(&folder.config(), text.as_bytes())?;
    let interrupted = watch_for_interrupts()?;
    let images = unlabelled.len();
    let experiment = Experiment { settings, flags, programs, bases, images, folder, interrupted };
    experiment.announce();
    let outcome = experiment.compare(begin.plan_only);
    if experiment.interrupted.load(Ordering::Relaxed) && outcome.is_err() {
        bail!(
            "interrupted; what is finished stays. Continue with: pretrain compare --output {} \
             --resume",
            display_path(&settings.output)
        );
    }
    outcome
}

/// What the programs make of their flags.
struct Bases {
    model: String,
    channels: usize,
    /// Images of a step of pretraining and of fine-tuning.
    batches: [usize; 2],
}

impl Bases {
    fn of(flags: &Flags, programs: &[Program; 2]) -> Result<Self> {
        let number = |table: &Table, key: &str| {
            let value = table.get(key).and_then(toml::Value::as_integer);
            value.and_then(|value| usize::try_from(value).ok())
        };
        let output = |mut flags: Vec<std::ffi::OsString>| {
            flags.extend(["--output".into(), "unused".into()]);
            flags
        };
        let pretraining = programs[0].settings(&output(flags.pretraining(1, 1)))?;
        let all = flags.labelled.part(1.0, 0, Path::new(""))?;
        let tuning = programs[1].settings(&output(flags.tune(&all, 1, 1, 1, 0)))?;
        let batch = |table| number(table, "batch-size").context("settings without a batch-size");
        let [model, tuned] =
            [&pretraining, &tuning].map(|table| model_of(table).unwrap_or_default());
        ensure!(
            model == tuned,
            "pretraining is of {model}, but fine-tuning of {tuned}: name one --model"
        );
        Ok(Self {
            model: model.to_owned(),
            channels: number(&pretraining, "in-chans").unwrap_or(3),
            batches: [batch(&pretraining)?, batch(&tuning)?],
        })
    }
}

struct Experiment<'a> {
    settings: &'a CompareSettings,
    flags: Flags<'a>,
    programs: [Program; 2],
    bases: Bases,
    /// To pretrain on.
    images: usize,
    folder: RunDir,
    interrupted: Arc<AtomicBool>,
}

impl Experiment<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn pretraining(&self) -> PathBuf {
        self.path(PRETRAINING)
    }

    /// The labels of a share that `seed` draws, written to the folder `labels`.
    fn part(&self, share: f64, seed: u64) -> Result<Part> {
        let labels = self.path("labels");
        fs::create_dir_all(&labels)
            .with_context(|| format!("cannot make {}", display_path(&labels)))?;
        let name = format!("{}-percent-seed{seed}", share_name(share));
        self.flags.labelled.part(share, seed, &labels.join(name))
    }

    /// Says what is about to be compared.
    fn announce(&self) {
        let Self { settings, flags, bases, images, .. } = self;
        eprintln!(
            "unlabelled  {} in {}\n\
             labelled    {} in {}\n\
             model       {}, preset {}\n\
             output      {}",
            counted(images, "image"),
            display_path(&settings.data),
            flags.labelled.describe(),
            display_path(&settings.labelled),
            bases.model,
            flags.preset,
            display_path(self.folder.path()),
        );
        if lies_in(&flags.labelled.image_folders()[1], &settings.data) {
            eprintln!(
                "note: the validation images are among those of --data: what is said of them is \
                 said of images that pretraining has seen, without their labels"
            );
        }
    }

    fn compare(&self, plan_only: bool) -> Result<()> {
        let mut progress = match Progress::open(self.folder.path())? {
            Some(progress) => progress,
            None => {
                let progress = self.plan()?;
                progress.save(self.folder.path())?;
                progress
            }
        };
        print!("{}", progress.describe(&self.settings.shares, 60.0 * self.settings.minutes));
        if plan_only {
            let path = display_path(self.folder.path());
            println!("to go on: pretrain compare --output {path} --resume");
            return Ok(());
        }
        self.run_all(&mut progress)?;
        self.report(&progress)
    }

    /// Measures, and plans what fits.
    fn plan(&self) -> Result<Progress> {
        let began = Instant::now();
        let shares = &self.settings.shares;
        let steps = |images: usize, batch: usize| images.div_ceil(batch) as u64;
        let [pretraining, tuning] = self.bases.batches;
        let parts: Vec<Part> =
            shares.iter().map(|&share| self.part(share, 0)).collect::<Result<_>>()?;
        let epochs = Epochs {
            pretraining: steps(self.images, pretraining),
            finetuning: parts.iter().map(|part| steps(part.images, tuning)).collect(),
        };
        let costs = self.costs(&epochs)?;
        let budget = 60.0 * self.settings.minutes;
        let spent = began.elapsed().as_secs_f64();
        let CompareSettings { seeds, max_pretrain_epochs, max_epochs, .. } = *self.settings;
        let most = [max_pretrain_epochs, max_epochs];
        let wishes = Wishes { budget, spent, shares: shares.clone(), seeds, most };
        let plan = Plan::new(&wishes, costs, &epochs)?;
        let (seconds, finished) = Default::default();
        Ok(Progress { costs, epochs, plan, seconds, finished })
    }

    /// Times short runs: pretraining on all images, fine-tuning on a few labels.
    fn costs(&self, epochs: &Epochs) -> Result<[Cost; 2]> {
        let budget = 60.0 * self.settings.minutes;
        let of_pretraining = measure::STEPS.div_ceil(epochs.pretraining);
        let [pretrain, tune] = self.bases.batches;
        let all = self.flags.labelled.images_of_training();
        let share = (measure::STEPS as f64 * tune as f64 / all as f64).min(self.settings.shares[0]);
        let path = self.path("labels").join("measured");
        let part = self.flags.labelled.part(share, 0, &path)?;
        let epoch = part.images.div_ceil(tune) as u64;
        let steps = epoch * measure::STEPS.div_ceil(epoch);
        // One epoch more than it needs, so that it is still at it when it is told to stop.
        let pretraining = self.flags.pretraining(of_pretraining + 1, u64::MAX / 2);
        let first = Sample {
            what: "pretraining",
            program: &self.programs[0],
            flags: pretraining,
            batch: pretrain as f64,
            endless: true,
        };
        let second = Sample {
            what: "fine-tuning and an evaluation",
            program: &self.programs[1],
            flags: self.flags.tune(&part, epoch, steps, 1, 0),
            batch: tune as f64,
            endless: false,
        };
        let run = self.path("measured");
        let first = first.cost(&run, budget, &self.interrupted)?;
        Ok([first, second.cost(&run, budget, &self.interrupted)?])
    }

    /// Makes the runs that are not finished yet.
    fn run_all(&self, progress: &mut Progress) -> Result<()> {
        let plan = progress.plan.clone();
        let all = tunings(&plan, &self.settings.shares);
        let expected = |tuning: &Tuning| match tuning.arm {
            Arm::Longer => plan.seconds.longer,
            _ => plan.seconds.finetuning,
        };
        let total = all.len() + 1;
        let mut clock = Clock::new(&plan, progress, &all, expected);
        if !progress.finished.contains_key(PRETRAINING) {
            let training = Training {
                run: self.pretraining(),
                flags: self.flags.pretraining(plan.pretraining_epochs, plan.pretraining_steps),
            };
            let title = format!("run 1/{total}  pretraining");
            let steps = plan.pretraining_steps;
            self.watch(
                0,
                &training,
                (&title, steps, plan.seconds.pretraining),
                PRETRAINING,
                progress,
                &mut clock,
            )?;
            let outcome = Outcome { images: self.images, curves: Default::default() };
            progress.finished.insert(PRETRAINING.into(), outcome);
            progress.save(self.folder.path())?;
        }
        for (at, tuning) in all.iter().enumerate() {
            let name = tuning.name();
            if progress.finished.contains_key(&name) {
                continue;
            }
            let (training, part, steps) = self.tuning(tuning, progress)?;
            let title = format!("run {}/{total}  {}", at + 2, tuning.title());
            let watched = (title.as_str(), steps, expected(tuning));
            self.watch(1, &training, watched, &name, progress, &mut clock)?;
            let outcome = self.outcome(&training.run, part.images)?;
            let reached = self.figures().iter().filter_map(|figure| {
                Some(format!("{} {:.2}", figure.name, outcome.curves.get(figure.name)?.last()?.1))
            });
            clock.shown.note(&format!("{title}: {}", reached.collect::<Vec<_>>().join(", ")));
            progress.finished.insert(name, outcome);
            progress.save(self.folder.path())?;
            if !self.settings.keep_checkpoints {
                let checkpoints = training.run.join("checkpoints");
                fs::remove_dir_all(&checkpoints)
                    .with_context(|| format!("cannot remove {}", display_path(&checkpoints)))?;
            }
        }
        clock.shown.finish();
        Ok(())
    }

    /// The training of `tuning`, its labels and its steps.
    fn tuning(&self, tuning: &Tuning, progress: &Progress) -> Result<(Training, Part, u64)> {
        let plan = &progress.plan;
        let part = self.part(tuning.share, tuning.seed)?;
        let epoch = part.images.div_ceil(self.bases.batches[1]) as u64;
        let mut flags = self.flags.tune(&part, epoch, tuning.steps, plan.evaluations, tuning.seed);
        if tuning.arm == Arm::Pretrained {
            flags.extend(Flags::weights(&self.pretraining()));
        }
        let steps = match self.flags.labelled {
            Labelled::Classes { .. } => epochs_of(tuning.steps, epoch) * epoch,
            Labelled::Coco { .. } => tuning.steps,
        };
        let run = self.path("runs").join(tuning.name());
        Ok((Training { run, flags }, part, steps))
    }

    /// Runs `training` with the program `which` to its end, and counts its time.
    fn watch(
        &self,
        which: usize,
        training: &Training,
        (title, steps, expected): (&str, u64, f64),
        name: &str,
        progress: &mut Progress,
        clock: &mut Clock,
    ) -> Result<()> {
        super::check_interrupt(&self.interrupted)?;
        let began = Instant::now();
        let ended = self.programs[which].train(training).and_then(|watched| {
            watched.wait(&self.interrupted, |step, elapsed| {
                clock.show(title, (step.min(steps), steps), elapsed.as_secs_f64(), expected);
                false
            })
        });
        let seconds = began.elapsed().as_secs_f64();
        *progress.seconds.entry(name.into()).or_default() += seconds;
        clock.count(seconds, expected);
        progress.save(self.folder.path())?;
        match ended? {
            Ended::Done => Ok(()),
            Ended::Stopped => super::check_interrupt(&self.interrupted),
        }
    }

    fn figures(&self) -> &'static [Figure] {
        match self.flags.labelled {
            Labelled::Classes { .. } => &OF_CLASSES,
            Labelled::Coco { .. } => &OF_OBJECTS,
        }
    }

    fn outcome(&self, run: &Path, images: usize) -> Result<Outcome> {
        let path = run.join(METRICS);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", display_path(&path)))?;
        let records: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let figures =
            self.figures().iter().map(|figure| (figure.name.to_owned(), figure.curve(&records)));
        let curves = figures.filter(|(_, curve)| !curve.is_empty()).collect();
        let outcome = Outcome { images, curves };
        ensure!(!outcome.curves.is_empty(), "{} has no evaluation", display_path(&path));
        Ok(outcome)
    }

    /// Prints and writes what the runs say.
    fn report(&self, progress: &Progress) -> Result<()> {
        let shares = &self.settings.shares;
        let held_out = self.flags.labelled.held_out();
        let reports: Vec<_> = self
            .figures()
            .iter()
            .filter_map(|figure| progress.report(shares, figure, held_out))
            .collect();
        let document = Document::new(&progress.plan, &reports, progress.all_seconds());
        let text = document.text();
        let panels = progress.panels(shares, &self.figures()[0]);
        let files = ["report.txt", "report.json", "curves.png"].map(|name| self.path(name));
        write_file(&files[0], text.as_bytes())?;
        write_file(&files[1], &serde_json::to_vec_pretty(&document)?)?;
        write_file(&files[2], &png(&picture::draw(&panels)?)?)?;
        print!("\n{text}");
        let [text, table, curves] = files;
        let weights = self.pretraining().join("export");
        print_written(&[
            ("report", text),
            ("numbers", table),
            ("curves", curves),
            ("weights", weights),
        ]);
        Ok(())
    }
}
