//! Set-up, demo, tests and measurements of the workspace, as `cargo xtask COMMAND`.
//!
//! Depends on no crate that links libtorch, so that it can be built before
//! there is one.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod cargo_settings;
mod carried;
mod demo;
mod doctor;
mod files;
mod frameworks;
mod gpu_check;
mod install;
mod launch;
mod library;
mod libtorch;
mod notebook;
mod overlay;
mod photos;
mod pins;
mod places;
mod process;
mod python;
mod setup;
mod test;
mod tree;
mod wheel;

use launch::Launch;
use library::{Profile, Source};
use setup::{Purpose, Torch};
use spark_build::version;

/// Set-up, demo, tests and measurements of the workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = which_libtorch())]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

fn which_libtorch() -> String {
    format!(
        "\
libtorch, of any release from {}, is resolved in this order:
  --torch 2.15              fetched with pip into the user's cache folder, once
                            for all checkouts (XDG_CACHE_HOME moves it)
  LIBTORCH_USE_PYTORCH=1    the torch of the active Python
  LIBTORCH=/path            the folder with its lib/ and include/
  .cargo/torch.toml         the same as at an earlier set-up
  otherwise                 release {}, fetched",
        version::range(),
        version::DEFAULT
    )
}

#[derive(Subcommand)]
enum Task {
    /// Fetch libtorch and Python packages if missing; then plain cargo works
    #[command(after_help = "\
Examples:
  cargo xtask setup                             fetch libtorch, 5 GB on disk
  cargo xtask setup --torch 2.15                another release, from now on
  LIBTORCH=/opt/libtorch cargo xtask setup      use one that is there
  LIBTORCH_USE_PYTORCH=1 cargo xtask setup      use the active Python's
  XDG_CACHE_HOME=/big/disk cargo xtask setup    fetch it to another disk
  cargo xtask setup --nccl                      and what building for several GPUs needs")]
    Setup {
        #[command(flatten)]
        torch: Torch,
        /// Fetch CUDA's headers too, which building with the feature `nccl` needs
        #[arg(long)]
        nccl: bool,
    },
    /// Say what is set up and how to fix each problem
    #[command(after_help = "\
Changes nothing. Exits with 1 if there is a trouble.

Examples:
  cargo xtask doctor
  LIBTORCH=/opt/libtorch cargo xtask doctor     would that one do?")]
    Doctor,
    /// Run everything that is tested, setting up first
    #[command(after_help = "\
Examples:
  cargo xtask test                              the whole workspace
  cargo xtask test -p spark-backbone weights    one crate, names with `weights`
  cargo xtask test -- --nocapture               arguments of the test programs
  cargo xtask test --torch 2.15                 against another release, this once
  cargo xtask test --frameworks                 backbones in mmdet and detectron2
  cargo xtask test --notebook                   docs/playground.ipynb, executed")]
    Test {
        #[command(flatten)]
        torch: Torch,
        /// Instead, train a step of Mask R-CNN in mmdet (installed first, with
        /// operators that take minutes to compile) and in detectron2 if it can be
        /// imported
        #[arg(long)]
        frameworks: bool,
        /// Instead, execute docs/playground.ipynb with Jupyter (installed first) and our wheel,
        /// which takes some minutes
        #[arg(long, conflicts_with = "frameworks")]
        notebook: bool,
        /// Passed on to `cargo test`; those after `--` to the test programs
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build the Python package, with the shared library and the programs inside
    #[command(after_help = "\
The wheel carries a library for each release that is named, works with any patch
of these, and needs no LD_LIBRARY_PATH. With it come the programs pretrain, detect
and classify. No network is used once the releases are fetched.

Examples:
  cargo xtask wheel                             for the torch set up, into target/wheels
  cargo xtask wheel --torch 2.10,2.13,2.15      for three releases
  cargo xtask wheel --torch all                 for every release from 2.8 to 2.15
  cargo xtask wheel --no-programs --profile dev sooner built
  pip install target/wheels/spark_backbone-*.whl")]
    Wheel {
        /// Releases of torch to build for, or `all`; the one set up if not given
        #[arg(long, value_name = "RELEASES", value_delimiter = ',')]
        torch: Vec<String>,
        /// Leave out the programs pretrain, detect and classify
        #[arg(long)]
        no_programs: bool,
        #[command(flatten)]
        source: Source,
        /// Folder for the wheel; target/wheels if not given
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Build a bundle that checks everything on a machine with CUDA, setting up first
    #[command(after_help = "\
The bundle has programs for each release that is named, of which the other machine
has one: it needs Python with that torch, and nothing else. It is at most 60 MiB.
Programs are built with NCCL if its headers are there or can be fetched.

Examples:
  cargo xtask gpu-check                         for the torch set up, into target
  cargo xtask gpu-check --torch 2.11            for torch 2.11, any patch
  cargo xtask gpu-check --torch 2.10,2.13 --output gpu.tar.gz
  scp target/spark-gpu-check.tar.gz gpu: && ssh gpu \
    'tar xzf spark-gpu-check.tar.gz && spark-gpu-check/run.sh'")]
    GpuCheck {
        /// Releases of torch to build for; the one set up if not given
        #[arg(long, value_name = "RELEASES", value_delimiter = ',')]
        torch: Vec<String>,
        /// How the programs are built
        #[arg(long, value_enum, default_value_t = Profile::Release)]
        profile: Profile,
        /// The archive; spark-gpu-check.tar.gz in cargo's target folder if not given
        #[arg(long, value_name = "FILE.tar.gz")]
        output: Option<PathBuf>,
    },
    /// Pretrain a small encoder on real photographs and a detector on it, setting up first
    #[command(after_help = "\
Takes some ten minutes on two cores, after the build.

Examples:
  cargo xtask demo
  cargo xtask demo --seed 7                     see `pretrain train --help`")]
    Demo {
        #[command(flatten)]
        torch: Torch,
        /// Passed on to `pretrain train`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure us and the best others side by side, setting up and building first
    #[command(after_help = "\
Passed on to `bench run`, whose own help has all arguments; `scaling` first makes
it `bench scaling`. Results go to target/bench.

Examples:
  cargo xtask bench                             everything, about an hour on two cores
  cargo xtask bench --only spark-resnet50 inference --rounds 9
  cargo xtask bench --quick --threads 1         a first look
  cargo xtask bench --list                      the comparisons there are
  cargo xtask bench scaling --only batch        how time grows with the batch
  cargo xtask bench run --help                  all arguments")]
    Bench {
        #[command(flatten)]
        torch: Torch,
        /// Passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a program on several processes of this machine with torchrun, setting up
    /// and building first
    #[command(
        after_help = "\
PROGRAM is pretrain, classify or detect. Ctrl-C once: the processes save a
checkpoint and stop; they have two minutes (TORCH_ELASTIC_SHUTDOWN_TIMEOUT).
Each has OMP_NUM_THREADS = cores / N threads unless that is set. The exit status
is torchrun's. Several machines: docs/distributed.md.

Examples:
  cargo xtask launch -n 2 -- pretrain train --data photos --output runs/first
  cargo xtask launch -n 8 --features nccl --max-restarts 3 -- \\
    pretrain train --data photos --output runs/first --device cuda
  cargo xtask launch --profile dev -- classify train --data flowers --output runs/flowers",
        override_usage = "cargo xtask launch [OPTIONS] -- PROGRAM [ARGUMENTS]..."
    )]
    Launch(Launch),
    /// Build the shared library and lay it out for C, C++ and CMake, setting up first
    #[command(after_help = "\
PREFIX gets lib/libspark_backbone.so, include/, a CMake package and a pkg-config
file; it may be moved afterwards. A build that fails leaves it as it was.

Examples:
  cargo xtask install --prefix ~/spark                 then, for a host's build:
    cmake -S host -B build -DCMAKE_PREFIX_PATH=~/spark
    PKG_CONFIG_PATH=~/spark/lib/pkgconfig pkg-config --cflags --libs spark_backbone
  cargo xtask install --prefix /tmp/spark --profile dev")]
    Install {
        /// Folder to install into; made if missing
        #[arg(long)]
        prefix: PathBuf,
        #[command(flatten)]
        torch: Torch,
        #[command(flatten)]
        source: Source,
    },
    /// Write the demo's photographs to target/demo/photos, setting up first
    #[command(after_help = "\
Examples:
  cargo xtask photos")]
    Photos,
}

fn main() -> ExitCode {
    // Split here, since clap drops a `--` that comes first and keeps others.
    let (typed, after_dashes) = split_at_dashes(env::args().collect());
    match run(Arguments::parse_from(typed).command, after_dashes) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What comes before `--`, and what comes after it.
fn split_at_dashes(mut typed: Vec<String>) -> (Vec<String>, Vec<String>) {
    let dashes = typed.iter().position(|word| word == "--").unwrap_or(typed.len());
    let after = typed.split_off(dashes).into_iter().skip(1).collect();
    (typed, after)
}

fn run(task: Task, after_dashes: Vec<String>) -> Result<ExitCode> {
    match task {
        Task::Setup { torch, nccl } => {
            let checkout = setup::choose(&torch)?;
            if nccl {
                setup::nccl(&checkout)?;
            }
        }
        Task::Doctor if doctor::run()? > 0 => return Ok(ExitCode::FAILURE),
        Task::Doctor => {}
        Task::Test { frameworks: true, torch, .. } => frameworks::run(&torch)?,
        Task::Test { notebook: true, torch, .. } => notebook::run(&torch)?,
        Task::Test { torch, arguments, .. } => test::run(&torch, &arguments, &after_dashes)?,
        Task::Wheel { torch, no_programs, source, output } => {
            wheel::run(&torch, !no_programs, &source, output.as_deref())?;
        }
        Task::GpuCheck { torch, profile, output } => {
            gpu_check::run(&torch, profile, output.as_deref())?;
        }
        Task::Demo { torch, arguments } => demo::run(&torch, &[arguments, after_dashes].concat())?,
        Task::Bench { torch, arguments } => {
            return bench::run(&torch, &[arguments, after_dashes].concat());
        }
        Task::Launch(launch) => match launch::run(&launch, &after_dashes)? {},
        Task::Install { prefix, torch, source } => tree::run(&torch, &prefix, &source)?,
        Task::Photos => {
            photos::run(&setup::run(Purpose::Build, &Torch::default())?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_cargo_and_of_the_test_programs_are_told_apart() {
        let parse = |line: &str| {
            let typed = ["xtask", "test"].into_iter().chain(line.split_whitespace());
            let (typed, programs) = split_at_dashes(typed.map(str::to_owned).collect());
            let Task::Test { arguments, .. } = Arguments::parse_from(typed).command else {
                panic!("another command than test");
            };
            format!("{} | {}", arguments.join(" "), programs.join(" "))
        };
        assert_eq!(parse(""), " | ");
        assert_eq!(parse("name --release"), "name --release | ");
        assert_eq!(parse("-- --nocapture"), " | --nocapture");
        assert_eq!(parse("-p x --release name -- -q"), "-p x --release name | -q");
    }

    #[test]
    fn what_launch_starts_comes_after_the_dashes() {
        let line = "xtask launch -n 2 -- detect train -n 3 -- --data shapes";
        let (typed, after) = split_at_dashes(line.split(' ').map(str::to_owned).collect());
        assert!(matches!(Arguments::parse_from(typed).command, Task::Launch(_)));
        assert_eq!(after.join(" "), "detect train -n 3 -- --data shapes");
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
