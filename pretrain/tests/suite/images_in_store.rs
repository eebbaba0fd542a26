//! Images in object storage: the same run as on images of this machine's disk.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use test_objects::{Fault, Objects, Rule};

use crate::common::{Finished, TINY, Together, Workplace, wait_for_step, with_images, words};

/// What a run exports.
const EXPORT: &str = "export/tiny_spark.safetensors";
const HERE: &str = "set/{0..3}.tar";
const THERE: &str = "s3://bucket/set/{0..3}.tar";

/// Sixteen images in four shards, on the disk and in a store.
fn with_shards() -> (Workplace, Objects) {
    let (work, objects) = (with_images(16), Objects::start());
    let images: Vec<PathBuf> = ["class0", "class1"]
        .iter()
        .flat_map(|class| std::fs::read_dir(work.path("images").join(class)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    std::fs::create_dir(work.path("set")).unwrap();
    for shard in 0..4 {
        let mut builder = tar::Builder::new(Vec::new());
        for image in images.iter().skip(shard).step_by(4) {
            builder.append_path_with_name(image, image.file_name().unwrap()).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        std::fs::write(work.path(&format!("set/{shard}.tar")), bytes).unwrap();
    }
    objects.upload("bucket", "set/", &work.path("set")).unwrap();
    (work, objects)
}

/// A training of somebody who may use `objects`, with a cache folder of its own.
fn training(work: &Workplace, objects: &Objects, output: &str, more: &[&str]) -> Command {
    let mut command = work.command(&work.train_arguments(output, more));
    objects.show_to(&mut command).env("XDG_CACHE_HOME", work.path("home"));
    command
}

fn train(work: &Workplace, objects: &Objects, output: &str, more: &[&str]) -> Finished {
    Finished::from(training(work, objects, output, more).output().unwrap())
}

#[test]
fn a_run_on_a_store_ends_with_the_bits_of_a_local_one() {
    let (work, objects) = with_shards();
    work.train("here", &["--data", HERE]).succeeded();
    let here = work.bits("here", EXPORT);
    objects.fail(Rule::get("1.tar").after(3), Fault::Reset(100));
    objects.fail(Rule::get("2.tar").after(2), Fault::slow_down(None));
    train(&work, &objects, "there", &["--data", THERE]).succeeded();
    assert_eq!(work.curve("there"), work.curve("here"));
    assert_eq!(work.bits("there", EXPORT)["export"], here["export"]);
    // With a cache, whose second run asks for no image.
    let cached = ["--data", THERE, "--cache", "cache", "--cache-size", "1GB"];
    train(&work, &objects, "cached", &cached).succeeded();
    objects.requests();
    train(&work, &objects, "again", &cached).succeeded();
    assert!(objects.requests().iter().all(|request| request.method == "HEAD"));
    for run in ["cached", "again"] {
        assert_eq!(work.bits(run, EXPORT)["export"], here["export"], "{run}");
    }
}

#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let (work, objects) = with_shards();
    let more = ["--data", THERE, "--checkpoint-steps", "2"];
    train(&work, &objects, "whole", &more).succeeded();
    let mut child = training(&work, &objects, "killed", &more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_step(&work.path("killed"), 5);
    child.kill().unwrap();
    child.wait().unwrap();
    let more = [&more[..], &["--resume"]].concat();
    let finished = train(&work, &objects, "killed", &more).succeeded();
    assert!(finished.err.contains("resuming after step"), "{}", finished.err);
    assert_eq!(work.curve("killed"), work.curve("whole"));
    assert_eq!(work.bits("killed", EXPORT)["export"], work.bits("whole", EXPORT)["export"]);
}

/// Starts `count` processes, each with shards of its own.
fn together(work: &Workplace, objects: &Objects, count: usize, arguments: &str) -> Together {
    let model = work.path(TINY);
    let own = words("--workers 1 --shard-by-rank --precision float64 --checkpoint-steps 2 --model");
    let (output, more) = arguments.split_once(' ').unwrap();
    let more = [&own[..], &[model.to_str().unwrap()], &words(more)].concat();
    Together::start(count, &[], |_| training(work, objects, output, &more))
}

fn all_end_well(processes: Together) {
    for (rank, end) in processes.end().into_iter().enumerate() {
        assert!(end.ok, "rank {rank}: {}", end.err);
    }
}

#[test]
fn processes_with_shards_of_their_own_are_those_of_local_shards() {
    let (work, objects) = with_shards();
    let size = |path: &str| {
        let shard = path.rsplit('/').next().unwrap();
        std::fs::metadata(work.path("set").join(shard)).unwrap().len()
    };
    for count in [2, 4] {
        let run = |place: &str| format!("{place}{count}");
        let [here, there, killed] = ["here", "there", "killed"].map(run);
        all_end_well(together(&work, &objects, count, &format!("{here} --data {HERE}")));
        objects.requests();
        all_end_well(together(&work, &objects, count, &format!("{there} --data {THERE}")));
        assert_eq!(work.curve(&there), work.curve(&here));
        // Every image once in each of four epochs, and some of rank 0's for the sheet of
        // reconstructions; what goes to a shard's end finds out what is in it.
        let mut times = HashMap::new();
        for request in objects.requests() {
            let Some(range) = request.range().filter(|range| range.1 + 1 < size(&request.target))
            else {
                continue;
            };
            *times.entry((request.target, range)).or_insert(0) += 1;
        }
        let of_rank_0 = |target: &str| {
            let shard = target.strip_suffix(".tar").and_then(|start| start.rsplit('/').next());
            shard.unwrap().parse::<usize>().unwrap() % count == 0
        };
        let is_once = |((target, _), times): (&(String, _), &i32)| {
            *times == 4 || *times == 5 && of_rank_0(target)
        };
        assert!(times.len() == 16 && times.iter().all(is_once), "{times:?}");

        let processes = together(&work, &objects, count, &format!("{killed} --data {THERE}"));
        wait_for_step(&work.path(&killed), 5);
        (0..count).for_each(|rank| processes.signal(rank, "KILL"));
        processes.end();
        let again = format!("{killed} --data {THERE} --resume");
        all_end_well(together(&work, &objects, count, &again));
        assert_eq!(work.curve(&killed), work.curve(&there));
        assert_eq!(work.bits(&killed, EXPORT)["export"], work.bits(&there, EXPORT)["export"]);
    }
}

#[test]
fn a_store_that_is_gone_ends_the_run_in_time_with_its_object() {
    let (work, objects) = with_shards();
    objects.fail(Rule::get("2.tar").after(3).always(), Fault::Silence(Duration::from_secs(600)));
    let begun = Instant::now();
    let more = ["--data", THERE, "--dist-timeout", "8"];
    let finished = train(&work, &objects, "gone", &more);
    assert!(!finished.ok && begun.elapsed() < Duration::from_secs(60));
    let said = "s3://bucket/set/2.tar: reading bytes ";
    assert!(
        finished.err.contains(said) && finished.err.contains("given up after"),
        "{}",
        finished.err
    );
    objects.recover();
    objects.fail(Rule::any("").always(), Fault::expired());
    let finished = train(&work, &objects, "expired", &["--data", THERE]);
    assert!(!finished.ok, "a bucket that can't be read");
    let said = "s3://bucket/set/0.tar: looking at it: status 400 ExpiredToken";
    assert!(finished.err.contains(said), "{}", finished.err);
}
