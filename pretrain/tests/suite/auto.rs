//! A run whose settings are chosen, as a newcomer begins one.

use crate::common::{Finished, Together, Workplace, assert_says, blobs, read, with_images, words};

const PROCESSOR: &str = "--device cpu --threads 1 --workers 2";

fn newcomer(work: &Workplace, more: &str) -> Finished {
    work.run(&words(&format!("train --data images --output run {PROCESSOR} {more}")))
}

#[test]
fn a_few_photographs_are_trained_on_by_what_is_chosen_and_gone_on_with() {
    let work = with_images(6);
    let said = newcomer(&work, "--epochs 2").succeeded().err;
    let told = said.split("what you give stays:\n").nth(1).expect("the choices are told");
    for (setting, value, why) in [
        ("model", "resnet18", "a processor of few cores"),
        ("input-size", "64", "the images' short side is 72 px"),
        ("batch-size", "16", "6 images"),
        ("accum-steps", "1", "memory is enough for 16 images at a time"),
    ] {
        let row = told.lines().find(|line| line.trim_start().starts_with(setting));
        let row = row.unwrap_or_else(|| panic!("no {setting} in {said}"));
        assert_eq!(row.split_whitespace().nth(1), Some(value), "{row}");
        assert!(row.contains(why), "{row}");
    }
    assert!(!told.contains("  epochs"), "that is given:\n{told}");
    let chosen = String::from_utf8(read(work.path("run/config.toml"))).unwrap();
    let lines = ["batch-size = 16", "epochs = 2", "warmup-epochs = 1", "optimizer = \"adamw\""];
    assert_says(&chosen, &lines);

    // More images would be another batch: a run that goes on keeps its own.
    for number in 100..140 {
        blobs(number).save(work.path(&format!("images/class0/{number}.png"))).unwrap();
    }
    assert_says(&work.keeps_what_was_chosen([2, 3]), &["resuming after step 2"]);
}

#[test]
fn what_would_be_chosen_is_dumped_and_nothing_is_written() {
    let work = with_images(6);
    let dumped = newcomer(&work, "--model tiny.pt2 --batch-size 8 --dump-config").succeeded();
    assert_says(&dumped.out, &["batch-size = 8", "epochs = 1000", "checkpoint-epochs = 50"]);
    assert_says(&dumped.err, &["at least 1,000 steps"]);
    assert!(!work.path("run").exists());
    // It is complete: nothing is left to choose, nor are the images needed.
    std::fs::write(work.path("a.toml"), &dumped.out).unwrap();
    std::fs::rename(work.path("images"), work.path("elsewhere")).unwrap();
    let again = work.run(&words("train --config a.toml --dump-config")).succeeded();
    assert_eq!((again.out, again.err), (dumped.out, String::new()));
}

#[test]
fn rank_0_chooses_for_all() {
    let work = with_images(6);
    let arguments = format!("train --data images --output run {PROCESSOR} --model tiny.pt2");
    let arguments = [words(&arguments), words("--epochs 2")].concat();
    let said = Together::start(2, &[], |_| work.command(&arguments)).end();
    let said: Vec<String> = said.into_iter().map(|one| one.succeeded().err).collect();
    assert_says(&said[0], &["2 processes, each on cpu", "on 2 processes, 8 on each"]);
    assert!(!said[1].contains("what you give stays"), "{}", said[1]);
}

#[test]
fn what_cannot_be_chosen_by_is_told() {
    let work = with_images(2);
    let nothing = format!("train --data nothing --output run {PROCESSOR}");
    work.run(&words(&nothing)).refused(&["cannot train on --data nothing"]);
    newcomer(&work, "--mask-ratio 2").refused(&["mask-ratio is 2, but it must be in (0, 1)"]);
    newcomer(&work, "--input-size 100").refused(&["input-size is 100", "multiples of 32"]);
    for number in 0..2 {
        let name = format!("images/class{number}/00{number}.png");
        std::fs::write(work.path(&name), "no picture").unwrap();
    }
    newcomer(&work, "").refused(&["of 2 images looked at none tells its size", "000.png"]);
    assert!(!work.path("run").exists());
}

#[test]
fn how_long_a_run_takes_is_told() {
    let work = with_images(4);
    let said = work.train("run", &words("--epochs 40 --checkpoint-epochs 0")).succeeded().err;
    let line = said.lines().find(|line| line.starts_with("about ")).expect("the time is told");
    assert!(line.contains(" steps of ") && line.contains("), until "), "{line}");
}

#[test]
fn the_papers_recipe_stays() {
    with_images(1).keeps_recipe("paper", include_str!("paper.toml"));
}
