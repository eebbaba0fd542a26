//! Processes started by torchrun, and on machines with addresses of their own.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{
    Finished, Together, Workplace, assert_same_bits, assert_says, blobs, python, read,
    wait_for_step, with_images, words,
};

/// What a run exports.
const EXPORT: &str = "export/resnet18_spark.safetensors";

/// A training by torchrun on two processes, with as many as two restarts.
fn torchrun(work: &Workplace, more: &[&str]) -> Command {
    torchrun_of(&work.command(&work.train_arguments("run", more)))
}

fn torchrun_of(program: &Command) -> Command {
    let mut torchrun = Command::new(python());
    torchrun.args(["-I", "-m", "torch.distributed.run", "--standalone", "--no-python"]);
    torchrun.args(["--nproc-per-node", "2", "--max-restarts", "2"]);
    torchrun.arg(program.get_program()).args(program.get_args());
    torchrun.current_dir(program.get_current_dir().unwrap());
    torchrun.stdout(Stdio::piped()).stderr(Stdio::piped());
    torchrun
}

/// Kills the process that writes: its number is in the run's lock.
fn kill_main(work: &Workplace) {
    let lock = String::from_utf8(read(work.path("run/.lock"))).unwrap();
    assert!(Command::new("kill").args(["-KILL", lock.trim()]).status().unwrap().success());
}

#[test]
fn torchrun_brings_all_back_and_the_run_goes_on_exactly() {
    let work = with_images(10);
    // Steps that take long enough to be met between two checkpoints.
    let steps = ["--model", "resnet18", "--epochs", "6", "--checkpoint-steps", "4"];
    let more = [&steps[..], &["--workers", "1"]].concat();
    work.train_together(2, "whole", &more);

    // Given again at each restart, which must not delete what was done.
    let child = torchrun(&work, &[&more[..], &["--overwrite"]].concat()).spawn().unwrap();
    // Before there is a checkpoint, and after.
    wait_for_step(&work.path("run"), 1);
    kill_main(&work);
    wait_for_step(&work.path("run"), 6);
    kill_main(&work);

    let finished = Finished::from(child.wait_with_output().unwrap()).succeeded();
    assert_says(&finished.err, &["restarted: going on with", "resuming after step 4 of 18"]);
    assert_same_bits(&work.bits("whole", EXPORT), &work.bits("run", EXPORT));
    assert_eq!(work.curve("run"), work.curve("whole"));

    // Another launch is no restart of this one, however often torchrun tries.
    let before = read(work.path("run/checkpoints/last.safetensors"));
    let finished = Finished::from(torchrun(&work, &more).output().unwrap());
    finished.refused(&["a run already"]);
    assert!(read(work.path("run/checkpoints/last.safetensors")) == before);
}

/// Images that came since would make it another run.
#[test]
fn a_restarted_launch_does_not_choose_its_settings_again() {
    let work = with_images(6);
    let train = "train --data images --output run --model tiny.pt2 --epochs 60 --log-steps 1 \
                 --checkpoint-epochs 1 --picture-epochs 0 --device cpu --threads 1 --workers 1";
    let child = torchrun_of(&work.command(&words(train))).spawn().unwrap();
    wait_for_step(&work.path("run"), 3);
    for number in 100..140 {
        blobs(number).save(work.path(&format!("images/class0/{number}.png"))).unwrap();
    }
    kill_main(&work);
    let finished = Finished::from(child.wait_with_output().unwrap()).succeeded();
    assert_says(&finished.err, &["restarted: going on with", "resuming after step"]);
    assert_eq!(finished.err.matches("what you give stays").count(), 1, "{}", finished.err);
    let config = String::from_utf8(read(work.path("run/config.toml"))).unwrap();
    assert_says(&config, &["batch-size = 16"]);
}

/// Two network namespaces on one cable, removed at the end.
struct Machines;

impl Machines {
    const NAMES: [&str; 2] = ["spark-test-a", "spark-test-b"];
    const ADDRESSES: [&str; 2] = ["10.77.3.1", "10.77.3.2"];

    fn new() -> Self {
        let machines = Self;
        let [a, b] = Self::NAMES;
        ip(&["netns", "add", a]);
        ip(&["netns", "add", b]);
        ip(&["-n", a, "link", "add", "cable", "type", "veth", "peer", "cable", "netns", b]);
        for (name, address) in Self::NAMES.into_iter().zip(Self::ADDRESSES) {
            ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", "cable"]);
            ip(&["-n", name, "link", "set", "cable", "up"]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        machines
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in Self::NAMES {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments:?}");
}

#[test]
#[ignore = "needs root, to make network namespaces"]
fn machines_cut_off_from_each_other_both_stop() {
    let work = with_images(8);
    let _machines = Machines::new();
    let more = ["--epochs", "2000", "--workers", "1", "--dist-timeout", "5"];
    let arguments = work.train_arguments("run", &more);
    let plain = work.command(&arguments);
    let mut ranks = Together::start(2, &[], |rank| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", Machines::NAMES[rank], "env"]);
        let master = format!("MASTER_ADDR={}", Machines::ADDRESSES[0]);
        command.args([master.as_str(), "LOCAL_RANK=0", "LOCAL_WORLD_SIZE=1"]);
        command.arg(plain.get_program()).args(plain.get_args());
        command.current_dir(plain.get_current_dir().unwrap());
        command
    });
    wait_for_step(&work.path("run"), 4);
    ip(&["-n", Machines::NAMES[0], "link", "set", "cable", "down"]);
    let since = Instant::now();
    for rank in 0..2 {
        let finished = ranks.end_within(rank, Duration::from_secs(20));
        println!("rank {rank} after {:?}: {}", since.elapsed(), finished.err);
        finished.refused(&[&format!("rank {rank} of 2"), "at step ", "timeout of 5 s"]);
    }
    // What was saved before is whole.
    work.checkpoint("run");
}
