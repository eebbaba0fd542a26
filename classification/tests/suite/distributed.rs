//! Fine-tuning on several processes: the same run on any number of them.

use crate::common::{SAME, Workplace, assert_says, read, records, with_images, words};

/// Nine steps in double precision, with everything on: Mixup and CutMix pair images across
/// the whole batch.
const SETTINGS: &str = "--precision float64 --batch-size 8 --epochs 3 --mixup 0.4 --cutmix 1 \
                        --random-erasing 0.25 --ema 0.9 --workers 1 --base-lr 0.02";

/// The evaluations' records.
fn evaluations(work: &Workplace, run: &str) -> Vec<serde_json::Value> {
    let records = records(&work.path(run)).into_iter();
    records.filter(|record| record.get("top1").is_some()).collect()
}

fn same_on(counts: &[usize], more: &str) {
    // Eighteen images to train on and twelve to validate with: the last batch is filled up, and
    // on eight images there is no equal share of twelve.
    let work = with_images(6);
    work.comes_out_the_same(counts, 9, &[words(SETTINGS), words(more)].concat());
    let evaluated = evaluations(&work, "one");
    assert!(!evaluated.is_empty());
    for run in counts.iter().map(usize::to_string) {
        for (own, other) in evaluated.iter().zip(evaluations(&work, &run)) {
            for figure in ["top1", "ema_top1", "finished_epoch"] {
                assert_eq!(own[figure], other[figure], "{run}: {figure}");
            }
            let losses = [&own["val_loss"], &other["val_loss"]].map(|l| l.as_f64().unwrap());
            assert!((losses[0] - losses[1]).abs() < SAME, "{run}: {losses:?}");
        }
    }
}

#[test]
fn a_network_with_batch_norms_comes_out_the_same() {
    same_on(&[2, 4], "--optimizer lamb");
}

#[test]
fn a_convnext_comes_out_the_same() {
    let more = "--model convnext_atto --optimizer adamw --drop-path 0.2 --accum-steps 2";
    same_on(&[2], more);
}

#[test]
fn an_odd_number_of_images_is_not_mixed() {
    let work = with_images(4);
    let ranks = work.start_together(2, "run", &["--mixup", "0.4", "--workers", "1"], &[]).end();
    for finished in ranks {
        finished.refused(&["batch-size 6 makes 3 images on each of 2 processes"]);
    }
}

#[test]
fn unreadable_validation_images_are_left_out_wherever_they_are_read() {
    let work = with_images(4);
    // The first and the last of twelve: different processes read them.
    for name in ["blue/000.png", "red/003.png"] {
        std::fs::write(work.path("images/val").join(name), b"no picture").unwrap();
    }
    let settings = "--precision float64 --batch-size 4 --epochs 1 --warmup-epochs 0 --workers 1 \
                    --max-corrupt";
    let settings = |share| [words(settings), vec![share]].concat();
    let told = ["left out of validation: blue/000.png: ", "left out of validation: red/003.png: "];
    assert_says(&work.train("one", &settings("0.2")).succeeded().err, &told);
    let mut processes = work.start_together(2, "two", &settings("0.2"), &[]);
    assert_says(&processes.end_of(0).succeeded().err, &told);
    processes.end_of(1).succeeded();
    let [one, two] = ["one", "two"].map(|run| evaluations(&work, run).pop().unwrap());
    assert_eq!(one["top1"], two["top1"]);
    let losses = [&one, &two].map(|record| record["val_loss"].as_f64().unwrap());
    assert!((losses[0] - losses[1]).abs() < SAME, "{losses:?}");
    let list = String::from_utf8(read(work.path("two/corrupt.txt"))).unwrap();
    assert_eq!(list.as_bytes(), read(work.path("one/corrupt.txt")));
    assert_eq!(list.lines().count(), 2);

    // No process has more than the one that may be, and together they have two.
    for finished in work.start_together(2, "beyond", &settings("0.1"), &[]).end() {
        finished.refused(&["2 of 12 files", "at most 1", "blue/000.png: ", "red/003.png: "]);
    }
    work.checkpoint("beyond");
}
