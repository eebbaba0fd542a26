//! `pretrain shards`: sets that are made, gone on with, checked, and trained from.

use std::process::Stdio;

use image::{Rgb, RgbImage};
use test_objects::{Fault, Objects, Rule};

use crate::common::{Finished, Workplace, assert_says, names, read, shorter, with_images};

/// `with_images`, and 30 pictures of noise in `noise`, one of which fills a shard of 200 kB.
fn with_noise() -> Workplace {
    let work = with_images(2);
    std::fs::create_dir(work.path("noise")).unwrap();
    for seed in 0..30u32 {
        let mut state = seed + 1;
        let mut level = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as u8
        };
        let picture = RgbImage::from_fn(250, 200, |_, _| Rgb([level(), level(), level()]));
        picture.save(work.path(&format!("noise/{seed:02}.png"))).unwrap();
    }
    work
}

#[test]
fn killed_and_given_again_the_command_makes_the_same_bytes() {
    let work = with_noise();
    let make =
        |output| ["shards", "make", "--data", "noise", "--output", output, "--size", "200kB"];
    let whole = work.run(&make("whole")).succeeded();
    assert_says(&whole.out, &["30 shards: 30 images", "whole/shard-{000000..000029}.tar'"]);
    assert_says(&whole.err, &["30 images in noise", "no labels", "30/30 images"]);
    for shards in [2, 9, 18] {
        let mut child = work
            .command(&make("killed"))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let record = work.path(&format!("killed/.making/{shards:06}.json"));
        while !record.exists() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!work.path("killed/summary.json").exists(), "killed too late");
        // What a kill in the middle of writing leaves.
        std::fs::write(work.path("killed/.shard-000050.tar.9.tmp"), b"half").unwrap();
        work.run(&["shards", "check", "killed"]).refused(&["the shards are not finished"]);
    }
    let kept =
        || std::fs::metadata(work.path("killed/shard-000001.tar")).unwrap().modified().unwrap();
    let before = kept();
    work.run(&make("killed")).succeeded();
    assert_eq!(kept(), before, "no shard is made twice");
    let files = names(&work.path("whole"));
    assert_eq!(names(&work.path("killed")), files);
    for name in &files {
        let [one, other] = ["whole", "killed"].map(|set| read(work.path(set).join(name)));
        assert!(one == other, "{name} differs");
    }
    let again = work.run(&make("killed")).succeeded();
    assert_says(&again.out, &["30 shards made before"]);
    work.run(&["shards", "check", "killed"]).succeeded();
}

#[test]
fn class_folders_become_shards_that_train() {
    let work = with_images(8);
    std::fs::write(work.path("images/class0/broken.png"), b"no picture").unwrap();
    std::fs::write(work.path("images/class0/notes.txt"), b"").unwrap();
    let make = ["shards", "make", "--data", "images", "--output", "set", "--max-corrupt", "0.2"];
    let made = work.run(&make).succeeded();
    assert_says(
        &made.err,
        &["9 images in images; left out: 1 other file", "classes, 2: class0, class1"],
    );
    assert_says(
        &made.out,
        &[
            "1 shard: 8 images",
            "left out as unreadable: 1 file",
            "/set/classes.txt",
            "/set/shard-000000.tar'",
        ],
    );
    assert_says(
        &String::from_utf8(read(work.path("set/unreadable.txt"))).unwrap(),
        &["class0/broken.png\t"],
    );
    let checked = work.run(&["shards", "check", "set"]).succeeded();
    assert_says(&checked.out, &["1 shard, 8 images", "all as \"summary.json\" says"]);
    work.train("run", &shorter(&["--data", "set/shard-000000.tar"])).succeeded();

    let mut bytes = read(work.path("set/shard-000000.tar"));
    bytes[5000] ^= 1;
    std::fs::write(work.path("set/shard-000000.tar"), bytes).unwrap();
    let damaged =
        work.run(&["shards", "check", "set"]).refused(&["set: ", "1 problem, listed above"]);
    assert_says(&damaged.out, &["shard-000000.tar: its SHA-256 is"]);
}

#[test]
fn what_cannot_be_made_is_refused_and_nothing_is_written() {
    let work = with_images(2);
    std::fs::create_dir(work.path("empty")).unwrap();
    let make = |more: &[&str]| {
        let finished = work.run(&[&["shards", "make", "--output", "out"], more].concat());
        assert!(!work.path("out").exists(), "{more:?}");
        finished
    };
    make(&["--data", "empty"]).refused(&["empty: no images found"]);
    make(&["--data", "nothing"]).refused(&["nothing: No such file"]);
    make(&["--data", "images", "--size", "5kB"]).refused(&["size is 5kB, but at least 100kB"]);
    make(&["--data", "images", "--size", "many"]).refused(&["a number of bytes such as 256MB"]);
    make(&["--data", "images", "--quality", "101"])
        .refused(&["quality is 101, but it goes from 1"]);
    make(&["--data", "images", "--max-corrupt", "2"]).refused(&["max-corrupt is 2, but"]);
    make(&["--data", "images", "--in-order", "--seed", "3"]).refused(&["cannot be used with"]);
    make(&["--data", "images/class0", "--labels", "required"]).refused(&["no class folders in it"]);
    let inside = ["shards", "make", "--data", "images", "--output", "images/out"];
    work.run(&inside).refused(&["output is images/out, but that lies in the data, images"]);
    assert!(!work.path("images/out").exists());
    work.run(&["shards", "make", "--data", "images", "--output", "tiny.pt2"])
        .refused(&["tiny.pt2"]);
    work.run(&["shards", "check", "empty"]).refused(&["empty: holds no .tar shards"]);
    work.run(&["shards", "check", "nothing"]).refused(&["nothing: "]);
}

/// The program with these arguments, and the environment of somebody who may use `objects`.
fn run_with(objects: &Objects, work: &Workplace, arguments: &[&str]) -> Finished {
    Finished::from(objects.show_to(&mut work.command(arguments)).output().unwrap())
}

#[test]
fn shards_in_a_store_are_those_of_a_folder() {
    let (work, objects) = (with_noise(), Objects::start());
    let make = |output| ["shards", "make", "--data", "noise", "--output", output, "--size", "1MB"];
    work.run(&make("set")).succeeded();
    // Things go wrong as they do, and nothing comes of it.
    objects.fail(Rule::put("000001.tar"), Fault::slow_down(Some(0)));
    objects.fail(Rule::put("000001.tar"), Fault::AnswerLost);
    objects.fail(Rule::put("000002.idx"), Fault::Silence(std::time::Duration::ZERO));
    let mut child = objects
        .show_to(&mut work.command(&make("s3://bucket/deep/set")))
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while objects.get("bucket", "deep/set/.making/000001.json").is_none() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(objects.get("bucket", "deep/set/summary.json").is_none(), "killed too late");
    objects.requests();
    let made = run_with(&objects, &work, &make("s3://bucket/deep/set")).succeeded();
    assert_says(
        &made.out,
        &["30 images", "--data 's3://bucket/deep/set/shard-{000000..000004}.tar'"],
    );
    let again = |name: &str| {
        let requests = objects.requests();
        requests.iter().any(|request| request.method == "PUT" && request.target.contains(name))
    };
    assert!(!again("000000.tar"), "no shard is made twice");

    let files = names(&work.path("set"));
    let keys: Vec<String> = files.iter().map(|name| format!("deep/set/{name}")).collect();
    assert_eq!(objects.keys("bucket"), keys);
    for (name, key) in files.iter().zip(&keys) {
        assert!(objects.get("bucket", key).unwrap() == read(work.path("set").join(name)), "{name}");
    }
    let check = ["shards", "check", "s3://bucket/deep/set"];
    objects.fail(Rule::get("000000.tar"), Fault::Reset(1000));
    run_with(&objects, &work, &check).succeeded();
    let mut bytes = objects.get("bucket", &keys[1]).unwrap();
    bytes[1000] ^= 1;
    objects.put("bucket", &keys[1], bytes);
    let damaged = run_with(&objects, &work, &check).refused(&["s3://bucket/deep/set: "]);
    assert_says(&damaged.out, &["shard-000000.tar: its SHA-256 is"]);

    objects.fail(Rule::any("").always(), Fault::denied());
    run_with(&objects, &work, &make("s3://bucket/other")).refused(&["s3://bucket/other"]);
}
