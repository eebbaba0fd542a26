//! The command line.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser};

use crate::facts::{self, DeviceKind, Facts};
use crate::measured;
use crate::recorder::Recorder;
use crate::report::{FORMAT, Item, Report, SectionReport, Status};
use crate::runner::{self, Start};
use crate::sections::distributed::{self, RankArgs};
use crate::sections::{SECTIONS, Section, Setting, chosen};

/// Checks of everything on a CUDA device against the processor.
#[derive(Debug, Parser)]
#[command(name = "gpu-check")]
pub enum Cli {
    /// Run the checks and write a report
    #[command(after_help = "\
Prints a line for each check, and writes report.json and report.md. All sections together take less
than eight minutes on a CUDA device. Exits with 1 if a check failed, or there is no such device.

Examples:
  gpu-check run                                  everything, on the first CUDA device
  gpu-check run --only layers,models             these sections
  gpu-check run --device cpu --only programs     try the checks themselves without a GPU
  gpu-check run --list                           the sections there are")]
    Run(RunArgs),
    /// One section, in a process of its own
    #[command(hide = true)]
    Section(SectionArgs),
    /// One of the processes of the section `distributed`
    #[command(hide = true)]
    Rank(RankArgs),
    /// Our side of a row of the section `bench`
    #[command(hide = true)]
    Steps(measured::Arguments),
}

/// What to run, and where.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// cuda, or cpu to compare the processor with itself
    #[arg(long, value_enum, default_value = "cuda")]
    device: DeviceKind,
    /// Folder for report.json and report.md
    #[arg(long, value_name = "DIR", default_value = "gpu-check-report")]
    report: PathBuf,
    /// Sections to run; all if not given
    #[arg(long, value_name = "SECTION", value_delimiter = ',', num_args = 1..)]
    only: Vec<String>,
    /// Say which sections there are
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    places: Places,
}

/// Where things lie.
#[derive(Debug, Clone, Args)]
pub struct Places {
    /// Folder of pretrain, detect and classify; this program's if not given
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Folder of the opponent's Python scripts; beside this program if not given
    #[arg(long, value_name = "DIR")]
    scripts: Option<PathBuf>,
    /// A Python with torch, which the bench needs; PYTHON, or python3, if not given
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
}

/// A section in its process.
#[derive(Debug, Args)]
pub struct SectionArgs {
    name: String,
    #[arg(long, value_enum)]
    device: DeviceKind,
    /// An empty folder for what it makes
    #[arg(long)]
    work: PathBuf,
    #[command(flatten)]
    places: Places,
}

impl Cli {
    /// Does what the command line says.
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Self::Run(run) => run.run(),
            Self::Section(section) => section.run().map(|()| ExitCode::SUCCESS),
            Self::Rank(rank) => distributed::rank(&rank).map(|()| ExitCode::SUCCESS),
            Self::Steps(steps) => measured::run(&steps).map(|()| ExitCode::SUCCESS),
        }
    }
}

impl RunArgs {
    fn run(self) -> Result<ExitCode> {
        let sections = chosen(&self.only)?;
        if self.list {
            for section in sections {
                println!("{:<17} {} (at most {} s)", section.name, section.what, section.limit_s);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let device = facts::device(self.device)?;
        let work = tempfile::tempdir().context("no folder can be made for what the checks make")?;
        let mut report = Report {
            format: FORMAT,
            facts: Facts::of(device),
            seconds: 0.0,
            complete: false,
            sections: Vec::new(),
        };
        // A folder that cannot be written is told before minutes go by.
        report.write(&self.report)?;
        eprintln!("{}", report.facts);
        let begun = Instant::now();
        for section in sections {
            report.sections.push(self.section(section, work.path())?);
            report.seconds = begun.elapsed().as_secs_f64();
            // What was found so far survives an interrupt.
            report.write(&self.report)?;
        }
        report.complete = true;
        report.write(&self.report)?;
        eprintln!("{}; report.json and report.md in {}", report.summary(), self.report.display());
        let failed = report.count(Status::Failed) > 0;
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Runs one section as a process.
    fn section(&self, section: &Section, work: &Path) -> Result<SectionReport> {
        let folder = work.join(section.name);
        std::fs::create_dir(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let mut command = Command::new(own_path()?);
        command.args(["section", section.name, "--device", self.device.name(), "--work"]);
        command.arg(&folder);
        self.places.pass_on(&mut command);
        if section.exact {
            // Products of float32 with all of its bits, which cuDNN else rounds to ten.
            command.env("NVIDIA_TF32_OVERRIDE", "0");
        }
        let start = Start {
            name: section.name.to_owned(),
            what: section.what.to_owned(),
            limit: Duration::from_secs(section.limit_s) * self.device.patience(),
            command,
            log: work.join(section.name).with_extension("log"),
        };
        runner::run(start, &mut |item: &Item| eprintln!("{:<17} {}", section.name, item.line()))
    }
}

impl SectionArgs {
    fn run(self) -> Result<()> {
        let section = SECTIONS.iter().find(|section| section.name == self.name);
        let section = section.with_context(|| format!("there is no section {:?}", self.name))?;
        let device = facts::device(self.device)?;
        ensure!(self.work.is_dir(), "--work is {}, but that is no folder", self.work.display());
        let setting = Setting { device, kind: self.device, work: self.work, places: self.places };
        (section.run)(&setting, &mut Recorder::default())
    }
}

impl Places {
    fn pass_on(&self, command: &mut Command) {
        let named = [
            ("--programs", &self.programs),
            ("--scripts", &self.scripts),
            ("--python", &self.python),
        ];
        for (flag, place) in named {
            if let Some(place) = place {
                command.arg(flag).arg(place);
            }
        }
    }

    /// The folder of pretrain, detect and classify.
    pub fn programs(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.programs {
            return std::path::absolute(folder).context("--programs is no path");
        }
        Ok(own_path()?.parent().context("this program lies in no folder")?.to_owned())
    }

    /// The folder of the opponent's scripts: in a bundle `python` beside the programs' folder.
    pub fn scripts(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.scripts {
            return std::path::absolute(folder).context("--scripts is no path");
        }
        let program = own_path()?;
        let beside = program.ancestors().nth(2).context("this program lies in no folder")?;
        let (beside, checkout) =
            (beside.join("python"), Path::new(env!("CARGO_MANIFEST_DIR")).join("python"));
        Ok(if beside.is_dir() { beside } else { checkout })
    }

    /// The Python that runs them.
    pub fn python(&self) -> PathBuf {
        let named = self.python.clone().or_else(|| std::env::var_os("PYTHON").map(PathBuf::from));
        named.unwrap_or_else(|| "python3".into())
    }
}

/// Where this program lies.
pub fn own_path() -> Result<PathBuf> {
    std::env::current_exe().context("where does this program lie?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
