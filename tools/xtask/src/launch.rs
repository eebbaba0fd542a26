//! `cargo xtask launch`: a program on several processes of this machine, started
//! and watched by torchrun.

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Result, bail};
use clap::Args;

use crate::library::Profile;
use crate::libtorch::Choice;
use crate::setup::{self, Checkout, Purpose, Torch};
use crate::{process, python};

/// The programs that run on several processes.
const PROGRAMS: [&str; 3] = ["pretrain", "classify", "detect"];

/// What a right command line looks like.
const EXAMPLE: &str = "cargo xtask launch -n 2 -- pretrain train --data photos --output runs/first";

/// How many processes there are by default where no GPU says how many.
const WITHOUT_GPUS: usize = 2;

/// Seconds that processes have to save a checkpoint and stop once they are told
/// to; torchrun alone would kill them after 30.
const SECONDS_TO_STOP: &str = "120";

/// How the processes are started.
#[derive(Debug, Clone, Args)]
pub struct Launch {
    /// Processes; as many as NVIDIA GPUs, or 2 if there are none, if not given
    #[arg(short = 'n', long, value_name = "N", value_parser = positive)]
    processes: Option<usize>,
    /// How often all are started again after one has failed; the run goes on from
    /// its last checkpoint
    #[arg(long, value_name = "K", default_value_t = 0)]
    max_restarts: u32,
    /// How the programs are built
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    #[command(flatten)]
    torch: Torch,
    /// Cargo features to build them with: `nccl` for GPUs
    #[arg(long, value_name = "FEATURES", value_delimiter = ',')]
    features: Vec<String>,
    /// What ought to come after `--`
    #[arg(hide = true, trailing_var_arg = true)]
    misplaced: Vec<String>,
}

/// A number of at least 1.
fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| "it must be a whole number of at least 1".to_owned())
}

/// Sets up, builds the programs, and becomes torchrun, which starts the program
/// and passes arguments that `after_dashes` names. Returns only when something
/// fails before that.
///
/// As xtask is replaced by torchrun, and before was put in cargo's place in the
/// same way, signals go to the one that watches over the processes, and its exit
/// status is the command's.
pub fn run(launch: &Launch, after_dashes: &[String]) -> Result<Infallible> {
    let (program, arguments) = what(&launch.misplaced, after_dashes)?;
    let checkout = setup::run(Purpose::Launch, &launch.torch)?;
    let words = launch.features.iter().flat_map(|features| features.split_whitespace());
    if words.filter_map(|feature| feature.rsplit('/').next()).any(|name| name == "nccl") {
        setup::nccl(&checkout)?;
    }
    process::run(&mut build(&checkout, launch))?;
    let program = checkout.target.join(launch.profile.folder()).join(program);
    let processes = launch.processes.unwrap_or_else(default_processes);
    let mut torchrun = torchrun(&checkout, processes, launch.max_restarts, &program);
    process::replace(torchrun.args(arguments))
}

/// The program that is asked for and its arguments.
fn what<'a>(misplaced: &[String], after_dashes: &'a [String]) -> Result<(&'a str, &'a [String])> {
    if !misplaced.is_empty() {
        bail!(
            "`{}` is no argument of launch: the program and its arguments come after `--`, as in \
             `{EXAMPLE}`",
            misplaced.join(" ")
        );
    }
    let names = PROGRAMS.join(", ");
    let Some((program, arguments)) = after_dashes.split_first() else {
        bail!("no program is named: one of {names} comes after `--`, as in `{EXAMPLE}`");
    };
    if !PROGRAMS.contains(&program.as_str()) {
        bail!("the program is {program:?}, but it must be one of {names}");
    }
    Ok((program, arguments))
}

/// Cargo, building every program, as README's build line has it: a part of them
/// would be built with other features of the dependencies, and those then a
/// second time.
fn build(checkout: &Checkout, launch: &Launch) -> Command {
    let mut cargo = checkout.cargo();
    cargo.args(["build", "--profile", launch.profile.name(), "--workspace", "--bins"]);
    if !launch.features.is_empty() {
        cargo.arg("--features").arg(launch.features.join(","));
    }
    cargo
}

/// torchrun, starting `program`; its arguments are to be added.
fn torchrun(checkout: &Checkout, processes: usize, max_restarts: u32, program: &Path) -> Command {
    let mut torchrun = interpreter(checkout);
    torchrun.args(["-m", "torch.distributed.run", "--standalone", "--no-python"]);
    torchrun.arg("--nproc-per-node").arg(processes.to_string());
    torchrun.arg("--max-restarts").arg(max_restarts.to_string());
    torchrun.arg(program);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let defaults = [
        // torchrun sets 1, with a warning.
        ("OMP_NUM_THREADS", threads(cores, processes).to_string()),
        ("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SECONDS_TO_STOP.to_owned()),
    ];
    torchrun.envs(defaults.into_iter().filter(|(name, _)| env::var_os(name).is_none()));
    torchrun
}

/// The Python that has torch.
fn interpreter(checkout: &Checkout) -> Command {
    if checkout.choice == Choice::ActivePython {
        return Command::new(python::active());
    }
    let mut python = Command::new(checkout.environment.python());
    // A folder called torch where the user stands is not meant.
    python.arg("-I");
    python
}

/// Threads of each process.
fn threads(cores: usize, processes: usize) -> usize {
    (cores / processes).max(1)
}

/// As many as GPUs that may be used.
fn default_processes() -> usize {
    let listing = process::read(Command::new("nvidia-smi").arg("-L")).unwrap_or_default();
    match gpus(&listing, env::var_os("CUDA_VISIBLE_DEVICES")) {
        0 => WITHOUT_GPUS,
        gpus => gpus,
    }
}

/// How many GPUs `listing`, the answer of `nvidia-smi -L`, has, of which only
/// `visible` may be used.
fn gpus(listing: &str, visible: Option<OsString>) -> usize {
    // A GPU that is split has further lines, indented.
    let listed = listing.lines().filter(|line| line.starts_with("GPU ")).count();
    let Some(visible) = visible else { return listed };
    let visible = visible.to_string_lossy();
    // CUDA stops at the first that is none.
    let named = visible.split(',').take_while(|name| !matches!(name.trim(), "" | "-1"));
    named.count().min(listed)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::python::Environment;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        launch: Launch,
    }

    fn checkout(choice: Choice) -> Checkout {
        Checkout {
            root: "/checkout".into(),
            environment: Environment::at("/cache".into()),
            choice,
            libtorch: "/torch".into(),
            version: "2.13.0".into(),
            target: "/target".into(),
        }
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn parse(line: &str) -> Result<Launch, String> {
        let line = Line::try_parse_from(words(&format!("launch {line}")));
        line.map(|line| line.launch).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_are_read_and_have_defaults() {
        let launch = parse("").unwrap();
        assert_eq!((launch.processes, launch.max_restarts), (None, 0));
        assert_eq!(launch.profile, Profile::Release);
        let launch = parse("-n 4 --max-restarts 3 --profile dev --features nccl,more").unwrap();
        assert_eq!((launch.processes, launch.max_restarts), (Some(4), 3));
        assert_eq!(launch.profile, Profile::Dev);
        assert_eq!(launch.features, ["nccl", "more"]);
    }

    #[test]
    fn a_number_of_processes_that_cannot_be_is_refused() {
        for number in ["0", "-1", "two", "1.5"] {
            let error = parse(&format!("--processes={number}")).unwrap_err();
            assert!(error.contains(&format!("'{number}'")), "{error}");
            assert!(error.contains("whole number of at least 1"), "{error}");
        }
        assert!(parse("-n 0").is_err());
    }

    #[test]
    fn a_program_before_the_dashes_is_explained() {
        let launch = parse("-n 2 pretrain train --data photos").unwrap();
        assert_eq!(launch.processes, Some(2));
        let error = what(&launch.misplaced, &[]).unwrap_err().to_string();
        for part in ["`pretrain train --data photos`", "come after `--`", EXAMPLE] {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        assert!(parse("--data photos").is_err(), "a flag that launch lacks");
    }

    #[test]
    fn the_program_is_one_that_runs_on_several_processes() {
        let typed = words("classify train -n 3");
        assert_eq!(what(&[], &typed).unwrap(), ("classify", &typed[1..]));
        let error = what(&[], &words("python train.py")).unwrap_err().to_string();
        let rule = "the program is \"python\", but it must be one of pretrain, classify, detect";
        assert_eq!(error, rule);
        let error = what(&[], &[]).unwrap_err().to_string();
        assert!(error.contains("no program") && error.contains(EXAMPLE), "{error}");
    }

    #[test]
    fn cargo_builds_every_program_with_the_features_asked_for() {
        let line = |flags: &str| {
            let cargo = build(&checkout(Choice::ActivePython), &parse(flags).unwrap());
            let arguments: Vec<_> = cargo.get_args().map(|word| word.to_string_lossy()).collect();
            arguments.join(" ")
        };
        assert_eq!(line(""), "build --profile release --workspace --bins");
        assert_eq!(
            line("--profile dev --features nccl --features more"),
            "build --profile dev --workspace --bins --features nccl,more"
        );
    }

    #[test]
    fn torchrun_gets_the_program_after_its_own_flags() {
        let line = |choice| {
            let program = Path::new("/target/release/detect");
            let torchrun = torchrun(&checkout(choice), 3, 1, program);
            let words = std::iter::once(torchrun.get_program()).chain(torchrun.get_args());
            words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        let flags = "-m torch.distributed.run --standalone --no-python --nproc-per-node 3 \
                     --max-restarts 1 /target/release/detect";
        assert_eq!(line(Choice::Cache("2.13.0".into())), format!("/cache/bin/python -I {flags}"));
        let active = python::active();
        assert_eq!(line(Choice::ActivePython), format!("{} {flags}", active.display()));
    }

    #[test]
    fn cores_are_shared_out_and_nobody_is_left_without() {
        assert_eq!([(8, 2), (7, 2), (2, 3), (1, 1)].map(|(c, n)| threads(c, n)), [4, 3, 1, 1]);
    }

    #[test]
    fn only_gpus_that_may_be_used_count() {
        let listing = "GPU 0: NVIDIA A100 (UUID: GPU-aa)\n  MIG 1g.5gb Device 0: (UUID: MIG-b)\n\
                       GPU 1: NVIDIA A100 (UUID: GPU-cc)\n";
        let count = |visible: Option<&str>| gpus(listing, visible.map(OsString::from));
        assert_eq!(count(None), 2);
        assert_eq!(gpus("No devices found.\n", None), 0);
        for (visible, expected) in
            [("", 0), ("1", 1), ("0,1", 2), ("0,1,2", 2), ("0,-1,1", 1), ("-1", 0)]
        {
            assert_eq!(count(Some(visible)), expected, "{visible:?}");
        }
    }
}
