//! Packed and masked-dense training are one function, and which of them a run takes is chosen
//! once.

use std::process::Command;
use std::time::Duration;

use backbone::weights::StateDict;
use engine::distributed::ProcessGroup;
use engine::settings::{TrainSettings as _, from_layers, read_table};
use engine::training::ResumeMode;
use pretrain::config::TrainConfig;
use pretrain::spark::Execution;
use pretrain::train::{TrainState, prepare};
use tch::Tensor;

use crate::common::{
    SAME, SHORTER, TINY, Together, Workplace, apart, assert_same_bits, assert_says, records,
    section, shorter, with_images, words,
};

const EXPORT: &str = "export/tiny_spark.safetensors";

/// Six steps in double precision, large enough ones that a wrong gradient shows.
const SIX: &str = "--precision float64 --batch-size 8 --epochs 3 --base-lr 0.2 --workers 1";

/// Everything that randomness touches is on: drop-path, accumulation; and averages.
const ALL: &str = "--drop-path 0.3 --accum-steps 2 --ema 0.9 --seed 5";

fn state(work: &Workplace, run: &str) -> TrainState {
    TrainState::read(&work.checkpoint(run)).unwrap()
}

fn execution(work: &Workplace, run: &str) -> Execution {
    state(work, run).task.execution.unwrap()
}

/// Packed and masked runs on these numbers of processes come out the same in double precision, to
/// the rounding of sums in another order ([`SAME`]).
fn same_when_masked(processes: usize, more: &str) {
    let work = with_images(16);
    let train = |processes, run: &str, execution: &str| {
        let more = format!("{SIX} {more} --execution {execution}");
        work.train_together(processes, run, &words(&more));
        work.curve(run)
    };
    let packed = train(1, "packed", "packed");
    let masked = train(processes, "masked", "masked");
    assert_eq!(execution(&work, "masked"), Execution::MaskedDense);
    let (loss, norm) = apart(&packed, &masked);
    println!("losses {loss:e}, gradient norms {norm:e} apart");
    assert!(loss < SAME && norm < SAME, "losses {loss:e}, norms {norm:e} apart");
    assert_ne!(packed, masked, "no sum was rounded in another order: it was not masked");
    assert!((packed[0].1 - packed[5].1).abs() > 1e-2, "nothing was learned: {packed:?}");
}

#[test]
fn a_resnet_is_the_same_when_masked() {
    same_when_masked(1, "--model resnet18");
}

#[test]
fn a_convnext_is_the_same_when_masked_in_parts() {
    same_when_masked(1, "--model convnext_atto --drop-path 0.3 --accum-steps 2");
}

#[test]
fn processes_that_share_statistics_are_the_same_when_masked() {
    same_when_masked(2, "--accum-steps 2");
}

/// The first step has the same weights: only rounding differs. Of float32's 2⁻²⁴ a sum of some
/// thousand terms loses a few bits, in each of eighteen layers; of bfloat16's 2⁻⁸, in which sums
/// are only stored, the layers add up to some per cent.
#[test]
fn other_precisions_are_the_same_but_for_rounding() {
    let work = with_images(8);
    for (precision, tolerance) in [("float32", 1e-4), ("bfloat16", 0.05)] {
        let first = |execution: &str| {
            let run = format!("{precision}-{execution}");
            let more = ["--precision", precision, "--execution", execution];
            work.train(&run, &shorter(&more)).succeeded();
            work.curve(&run)[0]
        };
        let (packed, masked) = (first("packed"), first("masked"));
        let of_loss = (packed.1 - masked.1).abs() / packed.1;
        let of_norm = (packed.2 - masked.2).abs() / packed.2;
        println!("{precision}: loss {of_loss:e}, gradient norm {of_norm:e} apart");
        assert!(of_loss < tolerance && of_norm < tolerance, "{precision}: {packed:?} {masked:?}");
        let bits = |execution: &str| work.bits(&format!("{precision}-{execution}"), EXPORT);
        assert_ne!(bits("packed"), bits("masked"), "{precision}: it was not masked");
    }
}

#[test]
fn a_masked_run_that_is_killed_ends_with_the_same_bits() {
    let work = with_images(10);
    let more = format!("{ALL} --checkpoint-steps 2 --execution masked");
    work.ends_the_same_when_killed(EXPORT, &[1, 5], &more);
    assert_eq!(execution(&work, "killed"), Execution::MaskedDense);
    assert!(work.path("killed/reconstruction.png").exists());
    work.train("packed", &words(&format!("{ALL} --execution packed"))).succeeded();
    assert_ne!(work.bits("packed", EXPORT), work.bits("whole", EXPORT));
}

/// `auto` goes on with what the checkpoint has; a name takes its place.
#[test]
fn what_was_chosen_stays_until_another_is_named() {
    let work = with_images(8);
    let more = |execution: &str| format!("--keep 9 --execution {execution}");
    let whole = work.train("run", &words(&more("masked"))).succeeded();
    assert_says(&whole.err, &["\nexecution  masked\n"]);
    let bits = work.bits("run", EXPORT);

    let go_on = |run: &str, execution: &str| {
        let from = "run/checkpoints/epoch-0002.safetensors";
        work.train(run, &["--resume", from, "--execution", execution]).succeeded().err
    };
    let told = go_on("auto", "auto");
    assert_says(&told, &["execution: \"masked\" → \"auto\"", "\nexecution  masked\n"]);
    assert!(!told.contains("continuing packed"), "{told}");
    assert_same_bits(&bits, &work.bits("auto", EXPORT));

    let told = go_on("packed", "packed");
    assert_says(&told, &["continuing packed what was masked", "\nexecution  packed\n"]);
    assert_eq!(execution(&work, "packed"), Execution::Packed);
    assert_ne!(bits, work.bits("packed", EXPORT));
}

#[test]
fn a_processor_is_packed_without_timing() {
    let work = with_images(4);
    let told = work.train("run", &SHORTER).succeeded().err;
    assert_says(&told, &["\nexecution  packed\n"]);
    assert_eq!(execution(&work, "run"), Execution::Packed);
    assert!(records(&work.path("run")).iter().all(|record| record.get("execution").is_none()));
    let help = work.run(&["train", "--help"]).succeeded().out;
    assert_says(&help, &["--execution <EXECUTION>", "[default: auto]", "on a processor it is"]);
}

/// Settings of a run that is to time both executions, for the processes that a test starts.
const TIMED: &str = "SPARK_TEST_TIMED_RUN";

/// A run of these settings that times both executions, on a processor too.
#[test]
#[ignore = "a process that other tests start"]
fn a_timed_run() {
    let Some(settings) = std::env::var_os(TIMED) else { return };
    let world = ProcessGroup::from_env(Duration::from_secs(60)).unwrap();
    let config: TrainConfig = from_layers([read_table(settings.as_ref()).unwrap()]).unwrap();
    let start = ResumeMode::New { overwrite: false };
    let mut setup = prepare(config.resolve().unwrap(), &start, &world, None).unwrap();
    setup.state.execution = None;
    tch::manual_seed(5);
    setup.train(&start).unwrap();
    let draw = || Vec::<f32>::try_from(Tensor::rand([4], tch::kind::FLOAT_CPU)).unwrap();
    let after = draw();
    tch::manual_seed(5);
    assert_eq!(after, draw(), "the generator was drawn from");
}

/// Trains in `count` processes that time both executions; what rank 0 said.
fn train_timed(work: &Workplace, count: usize, run: &str, more: &[&str]) -> String {
    let output = work.path(run).to_str().unwrap().to_owned();
    let data = work.path("images").to_str().unwrap().to_owned();
    let model = work.path(TINY).to_str().unwrap().to_owned();
    let more = [more, &["--data", &data, "--model", &model, "--dump-config"]].concat();
    let settings = work.path(&format!("{run}.toml"));
    std::fs::write(&settings, work.train(&output, &more).succeeded().out).unwrap();
    let mut ends = Together::start(count, &[(TIMED, settings.to_str().unwrap())], |_| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["execution::a_timed_run", "--exact", "--ignored", "--nocapture"]);
        command
    })
    .end();
    for end in &ends {
        assert!(end.ok && end.out.contains("1 passed"), "{}\n{}", end.out, end.err);
    }
    ends.swap_remove(0).err
}

/// The execution that a run timed and chose; it left nothing else behind: the run has the bits of
/// one that was told so from the beginning.
fn has_the_bits_of_one_that_was_told(count: usize, more: &str) {
    let work = with_images(8);
    let told = train_timed(&work, count, "timed", &words(more));
    let chosen = execution(&work, "timed");
    let line = told.lines().find(|line| line.starts_with("execution  ")).unwrap();
    let other = if chosen == Execution::Packed { "masked" } else { "packed" };
    assert!(line.starts_with(&format!("execution  {chosen}: ")), "{told}");
    assert_says(line, &[" s a step", &format!(", {other} ")]);
    let first = &records(&work.path("timed"))[0];
    assert_eq!((&first["step"], &first["execution"]), (&0.into(), &chosen.to_string().into()));
    assert!(first["packed_seconds"].as_f64() > Some(0.0), "{first}");
    assert!(first["masked_seconds"].as_f64() > Some(0.0), "{first}");

    let named = chosen.to_string();
    let named = [words(more), vec!["--execution", &named]].concat();
    work.train_together(count, "told", &named);
    assert_eq!(work.curve("timed"), work.curve("told"));
    assert_same_bits(&work.bits("timed", EXPORT), &work.bits("told", EXPORT));

    // It goes on with what it has, and does not time again.
    let at_end = work.run(&["train", "--output", "timed", "--resume", "--epochs", "5"]);
    assert_says(&at_end.succeeded().err, &[&format!("\nexecution  {chosen}\n")]);
}

#[test]
fn timing_leaves_nothing_behind() {
    has_the_bits_of_one_that_was_told(1, ALL);
}

#[test]
fn timing_in_two_processes_leaves_nothing_behind() {
    has_the_bits_of_one_that_was_told(2, ALL);
}

/// Running statistics are the process's own there, and gradients of weights bfloat16.
#[test]
fn timing_in_bfloat16_leaves_nothing_behind() {
    has_the_bits_of_one_that_was_told(1, "--precision bfloat16 --drop-path 0.3");
}

/// Pictures and reconstructions are made packed, whatever a run trained in.
#[test]
fn pictures_are_those_of_the_weights() {
    let work = with_images(4);
    let more = ["--model", "resnet18", "--execution", "masked", "--picture-epochs", "1"];
    work.train("run", &shorter(&more)).succeeded();
    assert!(work.path("run/pictures/epoch-0001.png").exists());
    let model: StateDict = section(&work, "run", "model");
    backbone::weights::write_pth(work.path("weights.pth"), &model).unwrap();
    let (_, of_run) = crate::common::reconstruct(&work, "run", &[]);
    let (_, of_weights) = crate::common::reconstruct(&work, "weights.pth", &["--input-size", "64"]);
    let name = "reconstruction";
    assert!(of_run[name].equal(&of_weights[name]));
}
