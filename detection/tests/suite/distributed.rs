//! Training a detector on several processes: the same run on any number of them.

use crate::common::{Together, Workplace, assert_says, read, records, with_data, words};

/// Eight steps in double precision on images of several sizes.
const SETTINGS: &str = "--precision float64 --batch-size 4 --epochs 4 --workers 1 \
                        --checkpoint-epochs 4 --precise-bn 2";

/// The figures of the last evaluation.
fn figures(work: &Workplace, run: &str) -> serde_json::Value {
    let of_evaluation = |record: &serde_json::Value| record.get("bbox/AP").is_some();
    records(&work.path(run)).into_iter().rfind(of_evaluation).expect("it was evaluated")
}

fn same_on(counts: &[usize], more: &str) {
    let work = with_data(8);
    work.comes_out_the_same(counts, 8, &[words(SETTINGS), words(more)].concat());
    for count in counts {
        assert_eq!(figures(&work, "one"), figures(&work, &count.to_string()));
    }
    // What was trained in double precision is used as any other.
    let last = counts.last().unwrap().to_string();
    let scores = ["evaluate", "--weights", &last, "--output", "scores"];
    let printed = work.run(&scores).succeeded().out;
    assert!(printed.contains("Average Precision"), "{printed}");
}

#[test]
fn a_network_with_batch_norms_comes_out_the_same() {
    // Batch norms in backbone, pyramid and heads; on some process no region is an object.
    same_on(&[2, 4], "");
}

#[test]
fn a_convnext_comes_out_the_same() {
    let convnext = "--detector mask_rcnn_convnext_base --backbone convnext_atto --drop-path 0.3";
    same_on(&[4], convnext);
    same_on(&[2], &format!("{convnext} --accum-steps 2"));
}

#[test]
fn losses_that_count_samples_come_out_the_same() {
    same_on(&[2], "--detector mask_rcnn_torchvision --ema 0.9");
}

#[test]
fn unreadable_validation_images_are_left_out_wherever_they_are_read() {
    let work = with_data(8);
    // Of three images the first is one process's and the second another's.
    for name in ["000000.jpg", "000001.jpg"] {
        std::fs::write(work.path("demo/val").join(name), b"no picture").unwrap();
    }
    let settings = "--precision float64 --batch-size 4 --epochs 1 --workers 1 --max-corrupt";
    let settings = |share| [words(settings), vec![share]].concat();
    let told = ["left out of validation: 000000.jpg: ", "left out of validation: 000001.jpg: "];
    assert_says(&work.train("one", &settings("0.7")).succeeded().err, &told);
    let mut processes = work.start_together(2, "two", &settings("0.7"), &[]);
    assert_says(&processes.end_of(0).succeeded().err, &told);
    processes.end_of(1).succeeded();
    assert_eq!(figures(&work, "one"), figures(&work, "two"));
    assert_eq!(work.json("one/report.json"), work.json("two/report.json"));
    let list = String::from_utf8(read(work.path("two/corrupt.txt"))).unwrap();
    assert_eq!(list.as_bytes(), read(work.path("one/corrupt.txt")));
    assert_eq!(
        list.lines().map(|line| &line[..11]).collect::<Vec<_>>(),
        ["000000.jpg\t", "000001.jpg\t"]
    );

    // No process has more than the one that may be, and together they have two.
    for finished in work.start_together(2, "beyond", &settings("0.4"), &[]).end() {
        finished.refused(&["2 of 3 files", "at most 1", "\n  000000.jpg: ", "\n  000001.jpg: "]);
    }
    assert_says(&String::from_utf8_lossy(&read(work.path("beyond/corrupt.txt"))), &[&list]);
    work.checkpoint("beyond");

    // Each process scores all of the images.
    let evaluate = ["evaluate", "--weights", "one", "--output", "scores"];
    let evaluate = |more: &[&str]| {
        let arguments = [&evaluate, more].concat();
        Together::start(2, &[], |_| work.command(&arguments)).end()
    };
    for finished in evaluate(&[]) {
        assert_says(&finished.succeeded().err, &["left out 000001.jpg: ", "2 of 3 images"]);
    }
    assert_eq!(work.json("scores/report.json"), work.json("one/report.json"));
    for finished in evaluate(&["--max-corrupt", "0.5"]) {
        finished.refused(&["2 of 3 files", "--max-corrupt"]);
    }
}
