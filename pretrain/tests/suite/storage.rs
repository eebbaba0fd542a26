//! Runs, weights and settings in object storage. The store is on the loopback interface.

use std::time::Duration;

use engine::checkpoint::CheckpointFile;
use test_objects::{Fault, Request, Rule};

use crate::common::{
    Finished, RUN, Stored, Together, Workplace, assert_says, names, read, shorter, wait_until,
    with_images,
};

const LAST: &str = "checkpoints/last.safetensors";
/// Everything that randomness touches is on, and a checkpoint every second step.
const SETTINGS: [&str; 10] = [
    "--drop-path",
    "0.3",
    "--accum-steps",
    "2",
    "--checkpoint-steps",
    "2",
    "--seed",
    "5",
    "--keep-checkpoints",
    "1",
];

/// The step that a checkpoint of these bytes was saved after; it is whole.
fn step_of(work: &Workplace, bytes: &[u8]) -> u64 {
    let path = work.path("checked.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let file = CheckpointFile::open(&path).unwrap();
    assert!(!file.section("model").unwrap().is_empty());
    file.state::<serde_json::Value>().unwrap()["step"].as_u64().unwrap()
}

#[test]
fn a_run_goes_on_on_another_machine_with_the_same_bits() {
    Stored::goes_on_elsewhere(&with_images(10), &SETTINGS);
}

#[test]
fn a_run_is_kept_whole_and_pruned() {
    let work = with_images(8);
    let stored = Stored::new(&work);
    let more = ["--keep-checkpoints", "1", "--work-dir", "scratch"];
    let said = stored.train("one", &more).succeeded();
    assert_says(&said.err, &["working folder", "uploaded to s3://bucket/runs/first/"]);
    let found = stored.names();
    for name in [
        "run.json",
        "config.toml",
        "metrics.jsonl",
        "loss.png",
        LAST,
        "checkpoints/best.safetensors",
        "checkpoints/epoch-0004.safetensors",
        "export/tiny_spark.safetensors",
    ] {
        assert!(found.iter().any(|found| found == name), "no {name} in {found:?}");
    }
    assert_eq!(found.iter().filter(|name| name.contains("epoch-")).count(), 1, "{found:?}");
    assert_eq!(stored.losses().len(), 8);
    let folder = work.path("scratch").join(&names(&work.path("scratch"))[0]);
    for name in &found {
        assert!(stored.get(name).unwrap() == read(folder.join(name)), "{name} differs");
    }
    assert!(!folder.join(".upload").read_dir().unwrap().flatten().any(|_| true));
    let events = |key: &String| key.starts_with("runs/first/tensorboard/");
    assert_eq!(stored.objects.keys("bucket").iter().filter(|key| events(key)).count(), 1);

    // On a machine that has the run already nothing is fetched; one past its end is whole.
    stored.objects.requests();
    let arguments = ["train", "--output", RUN, "--resume", "--work-dir", "scratch"];
    let again = stored.run("one", &arguments).succeeded();
    assert!(!again.err.contains("fetching"), "{}", again.err);
}

#[test]
fn an_upload_that_is_killed_leaves_the_last_checkpoint() {
    let work = with_images(8);
    let stored = Stored::new(&work);
    // Wide enough that a checkpoint is uploaded in parts (of 16 MiB).
    let settings =
        ["--decoder-width", "512", "--checkpoint-steps", "1", "--checkpoint-epochs", "0"];
    let mut child = stored.start("one", &settings);
    let first = stored.wait_for(LAST, None);
    assert!(first.len() > 20 << 20, "{} bytes are one part", first.len());
    stored
        .objects
        .fail(Rule::put("partNumber=2").always(), Fault::Silence(Duration::from_secs(600)));
    stored.objects.requests();
    let is_part_two = |request: &Request| request.target.contains("partNumber=2");
    wait_until(|| stored.objects.requests().iter().any(is_part_two));
    child.kill().unwrap();
    child.wait().unwrap();
    let left = stored.get(LAST).unwrap();
    let step = step_of(&work, &left);
    assert!((1..8).contains(&step), "{step}");

    // Another machine goes on from there, with all numbers before and none twice.
    stored.objects.recover();
    let resumed = stored.run("two", &["train", "--output", RUN, "--resume"]).succeeded();
    assert_says(&resumed.err, &[&format!("resuming after step {step} of 8")]);
    assert_eq!(
        stored.losses().iter().map(|(step, _)| *step).collect::<Vec<_>>(),
        (1..=8).collect::<Vec<_>>()
    );
    assert_eq!(step_of(&work, &stored.get(LAST).unwrap()), 8);
}

#[test]
fn a_run_there_is_neither_overwritten_nor_mixed_with_other_objects() {
    let work = with_images(4);
    let stored = Stored::new(&work);
    let absent = stored.run("one", &["train", "--output", RUN, "--resume"]);
    absent.refused(&["the run folder s3://bucket/runs/first/ is empty or absent", "--resume"]);
    stored.train("one", &shorter(&[])).succeeded();
    let before = stored.bits();
    for machine in ["one", "two"] {
        let refused = stored.train(machine, &shorter(&["--seed", "1"]));
        refused.refused(&["s3://bucket/runs/first/ is a run already", "--resume", "--overwrite"]);
    }
    assert_eq!(stored.bits(), before);
    stored.objects.put("bucket", "runs/first/pictures/epoch-9999.png", "old");
    stored.train("two", &shorter(&["--seed", "1", "--overwrite"])).succeeded();
    assert_ne!(stored.bits()[LAST], before[LAST]);
    assert!(stored.get("pictures/epoch-9999.png").is_none());

    // The first machine's copy is of a run that is no more: what is in storage counts.
    let resumed = stored.run("one", &["train", "--output", RUN, "--resume"]).succeeded();
    assert_says(&resumed.err, &["fetching"]);
    assert_eq!(stored.bits()[LAST], read(stored.folder("two").join(LAST)));

    stored.objects.put("bucket", "photos/a.jpg", "x");
    for more in [&[][..], &["--overwrite"], &["--resume"]] {
        let arguments = [&["train", "--data", "images", "--output", "s3://bucket/photos"], more];
        stored.run("one", &arguments.concat()).refused(&["photos/ is not empty", "left alone"]);
    }
    assert_eq!(stored.objects.get("bucket", "photos/a.jpg").unwrap(), b"x");
}

#[test]
fn places_that_cannot_be_written_are_told_at_once() {
    let work = with_images(4);
    let stored = Stored::new(&work);
    let train = |output: &str, more: &[&str]| -> Finished {
        stored.run("one", &work.train_arguments(output, &shorter(more)))
    };
    for (output, said) in [
        ("s3://nowhere/runs/first", &["s3://nowhere/runs/first"][..]),
        ("s3://bucket", &["a run needs a folder in the bucket"]),
        ("https://example.invalid/run", &["a web server is read only"]),
        ("ftp://host/run", &["its scheme must be one of s3"]),
    ] {
        train(output, &[]).refused(said);
        assert!(!work.path(output.split(':').next().unwrap()).exists(), "{output} became a folder");
    }
    train("run", &["--work-dir", "scratch"]).refused(&["work-dir is scratch, but"]);
    stored.objects.fail(Rule::any("runs").always(), Fault::denied());
    train(RUN, &[]).refused(&["s3://bucket/runs/first", "AccessDenied"]);
    stored.objects.recover();
    stored.objects.fail(Rule::any("runs").always(), Fault::expired());
    train(RUN, &[]).refused(&["s3://bucket/runs/first", "ExpiredToken"]);
    stored.objects.recover();
    // Who may read alone.
    stored.objects.fail(Rule::put("").always(), Fault::denied());
    train(RUN, &[]).refused(&["s3://bucket/runs/first/run.json", "AccessDenied"]);
    assert!(stored.names().is_empty());
    let sheet = ["mask-pattern", "--model", "resnet18", "--output", "s3://bucket/pattern.png"];
    stored.run("one", &sheet).refused(&["only runs (`train`) and exports"]);
}

#[test]
fn training_goes_on_while_the_store_refuses() {
    let work = with_images(8);
    let stored = Stored::new(&work);
    // `run.json` is written when the run begins, and that it may write is known.
    stored.objects.fail(Rule::put("checkpoints/").always(), Fault::expired());
    let failed = stored.train("one", &["--checkpoint-steps", "1"]);
    let folder = stored.folder("one");
    let kept = format!("the run is kept in {}", folder.display());
    failed.refused(&[
        &kept,
        "ExpiredToken",
        "with --resume uploads it",
        "and uploaded with the next",
    ]);
    assert_eq!(step_of(&work, &read(folder.join(LAST))), 8);
    assert!(folder.join("export/tiny_spark.safetensors").exists());
    assert!(stored.get(LAST).is_none());

    // Nothing is lost by trying too soon.
    stored.objects.fail(Rule::put("run.json").always(), Fault::expired());
    stored
        .run("one", &["train", "--output", RUN, "--resume"])
        .refused(&["run.json", "ExpiredToken"]);
    stored.objects.recover();
    let resumed = stored.run("one", &["train", "--output", RUN, "--resume"]).succeeded();
    assert_says(&resumed.err, &["resuming after step 8 of 8", "uploaded to"]);
    stored.is_as_on("one");
    assert_eq!(stored.losses().len(), 8);
}

#[test]
fn a_short_failure_is_not_noticed() {
    let work = with_images(8);
    let stored = Stored::new(&work);
    for (rule, fault) in [
        (Rule::put("last.safetensors"), Fault::slow_down(Some(1))),
        (Rule::put("metrics.jsonl"), Fault::too_many(None)),
        (Rule::put("best.safetensors"), Fault::AnswerLost),
        (Rule::any("run.json").after(2), Fault::Reset(0)),
    ] {
        stored.objects.fail(rule, fault);
    }
    let said = stored.train("one", &[]).succeeded();
    assert!(!said.err.contains("not up to date"), "{}", said.err);
    stored.is_as_on("one");
}

#[test]
fn a_process_whose_run_is_taken_over_stops() {
    let work = with_images(8);
    let stored = Stored::new(&work);
    let child = stored.start("one", &["--epochs", "3000", "--checkpoint-steps", "20"]);
    stored.wait_for(LAST, None);
    let mut other = stored.on("two", work.command(&["train", "--output", RUN, "--resume"]));
    let mut other = other.stderr(std::process::Stdio::null()).spawn().unwrap();
    let ended = Finished::from(child.wait_with_output().unwrap());
    let process = format!("process {} on ", other.id());
    ended.refused(&[&process, "writes to it now, so this one stops; what it has made is in"]);
    let left = stored.get(LAST).unwrap();
    stored.wait_for(LAST, Some(&left));
    other.kill().unwrap();
    other.wait().unwrap();

    // The first has steps that never got there, if it was further; else those of the second count.
    let resumed = stored.run("one", &["train", "--output", RUN, "--resume", "--epochs", "1"]);
    let steps = [
        step_of(&work, &stored.get(LAST).unwrap()),
        step_of(&work, &read(stored.folder("one").join(LAST))),
    ];
    match resumed.ok {
        true => assert_says(&resumed.err, &["fetching"]),
        false => {
            assert!(steps[1] > steps[0], "{steps:?}: {}", resumed.err);
            assert_says(&resumed.err, &["never got there", "move that folder away"]);
        }
    }
}

#[test]
fn two_processes_leave_what_one_does() {
    let work = with_images(8);
    let (one, two) = (Stored::new(&work), Stored::new(&work));
    one.train("one", &["--epochs", "2"]).succeeded();
    let mut arguments = work.train_arguments(RUN, &["--epochs", "2"]);
    let together = Together::start(2, &[], |_| two.on("two", work.command(&arguments)));
    for finished in together.end() {
        finished.succeeded();
    }
    assert_eq!(two.names(), one.names());
    let near = |(a, b): (&(u64, f64), &(u64, f64))| a.0 == b.0 && (a.1 - b.1).abs() < 1e-4;
    assert!(one.losses().iter().zip(&two.losses()).all(near), "float32, summed in another order");
    // A third machine goes on with both.
    arguments.extend(["--resume", "--epochs", "3"]);
    let together = Together::start(2, &[], |_| two.on("three", work.command(&arguments)));
    for finished in together.end() {
        finished.succeeded();
    }
    assert_eq!(step_of(&work, &two.get(LAST).unwrap()), 6);
}

#[test]
fn weights_networks_and_settings_are_read_from_a_bucket() {
    let work = with_images(4);
    let stored = Stored::new(&work);
    stored.train("one", &shorter(&["--model", "resnet18"])).succeeded();
    let inspect = |machine: &str, what: &str| stored.run(machine, &["inspect", what]);
    stored.objects.requests();
    let said = inspect("two", RUN).succeeded();
    assert_says(&said.out, &["a run of pretrain train with:", "model = \"resnet18\""]);
    assert_eq!(said.err, "", "no bar where there is no terminal");
    let fetched = |stored: &Stored| {
        let gets = stored.objects.requests().into_iter().filter(|r| r.method == "GET");
        gets.filter(|request| request.target.contains(".safetensors")).count()
    };
    assert!(fetched(&stored) > 0);
    inspect("two", RUN).succeeded();
    assert_eq!(fetched(&stored), 0, "it is kept");

    // Exports go there and come from there, in every form.
    let to = |format: &str, output: &str| {
        let export = ["export", "--weights", RUN, "--format", format, "--output", output];
        stored.run("two", &export).succeeded()
    };
    assert_says(&to("official", "s3://bucket/out/r18.pth").out, &["→ s3://bucket/out/r18.pth"]);
    to("timm", "s3://bucket/out/timm");
    let hub = to("hub", "s3://bucket/out/hub").out;
    assert!(!hub.contains("hf upload"), "{hub}");
    let keys = stored.objects.keys("bucket");
    for key in [
        "out/r18.pth",
        "out/timm/config.json",
        "out/timm/model.safetensors",
        "out/hub/README.md",
        "out/hub/reconstruction.png",
    ] {
        assert!(keys.iter().any(|found| found == key), "no {key} in {keys:?}");
    }
    let again = ["export", "--weights", RUN, "--format", "hub", "--output", "s3://bucket/out/hub"];
    stored.run("two", &again).refused(&["out/hub is not empty", "name a new folder"]);
    let nowhere = ["export", "--weights", RUN, "--format", "timm"];
    stored.run("two", &nowhere).refused(&["--output is not given, but s3://bucket/runs/first"]);
    for what in ["s3://bucket/out/r18.pth", "s3://bucket/out/timm", "s3://bucket/out/timm/"] {
        assert_says(&inspect("three", what).succeeded().out, &["120 tensors", "resnet18"]);
    }
    let address = format!("{}/bucket/out/r18.pth", stored.objects.endpoint());
    assert_says(&inspect("three", &address).succeeded().out, &["120 tensors"]);

    // What has changed is fetched anew; what has no such name is told.
    stored.objects.put("bucket", "out/r18.pth", "no weights");
    inspect("three", "s3://bucket/out/r18.pth").refused(&["r18.pth"]);
    let missing = inspect("three", "s3://bucket/out/r19.pth");
    missing.refused(&["s3://bucket/out/r19.pth", "no folder of that name is a run's"]);
    inspect("three", "s3://nowhere/r18.pth").refused(&["s3://nowhere/r18.pth"]);

    // A file in parts is fetched with these.
    let index = r#"{"weight_map": {"a": "part-1.safetensors"}}"#;
    stored.objects.put("bucket", "parts/model.safetensors.index.json", index);
    let indexed = "s3://bucket/parts/model.safetensors.index.json";
    inspect("three", indexed).refused(&["s3://bucket/parts/part-1.safetensors is missing"]);

    // A run begins with settings, weights and a network from there.
    stored.objects.put("bucket", "settings.toml", "seed = 7\nepochs = 1\nwarmup-epochs = 0\n");
    stored.objects.put("bucket", "net.pt2", read(work.path("tiny.pt2")));
    let more = ["--config", "s3://bucket/settings.toml", "--dump-config"];
    let arguments = [&["train", "--data", "images", "--output", "run"][..], &more].concat();
    assert_says(&stored.run("three", &arguments).succeeded().out, &["seed = 7"]);
    let from = ["--model", "resnet18", "--init-weights", "s3://bucket/out/timm"];
    let arguments = work.train_arguments("begun", &[]);
    let said = stored.run("three", &[&arguments[..], &shorter(&from)].concat()).succeeded();
    assert_says(&said.err, &["initial weights"]);
    let network = shorter(&["--model", "s3://bucket/net.pt2"]);
    stored.run("three", &work.train_arguments("own", &network)).succeeded();
    let broken =
        ["train", "--data", "images", "--output", "x", "--config", "s3://bucket/none.toml"];
    stored.run("three", &broken).refused(&["s3://bucket/none.toml"]);
}

#[test]
fn a_download_is_whole_whatever_breaks() {
    let work = with_images(4);
    let stored = Stored::new(&work);
    work.train("run", &shorter(&[])).succeeded();
    stored.objects.upload("bucket", "kept/", &work.path("run")).unwrap();
    for fault in [Fault::Reset(1000), Fault::Cut(1000), Fault::Shorter(8), Fault::slow_down(None)] {
        stored.objects.fail(Rule::get("last.safetensors"), fault);
    }
    let said = stored.run("one", &["inspect", "s3://bucket/kept"]).succeeded();
    assert_says(&said.out, &["a run of pretrain train with:"]);
    stored.objects.fail(Rule::get("best.safetensors").always(), Fault::denied());
    let best = "s3://bucket/kept/checkpoints/best.safetensors";
    stored.run("one", &["inspect", best]).refused(&[best, "AccessDenied"]);
    stored.objects.recover();
    stored.run("one", &["inspect", best]).succeeded();
    // Many ask at once, and one fetches.
    stored.objects.requests();
    stored.objects.delay(Duration::from_millis(30));
    let inspect = || stored.on("two", work.command(&["inspect", best])).output().unwrap();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..3).map(|_| scope.spawn(|| Finished::from(inspect()))).collect();
        all.into_iter().for_each(|one| drop(one.join().unwrap().succeeded()));
    });
    let is_read = |target: &str| target.contains("best.safetensors");
    let gets = stored.objects.requests();
    let gets = gets.iter().filter(|r| r.method == "GET" && is_read(&r.target)).count();
    assert_eq!(gets, 1);
}
