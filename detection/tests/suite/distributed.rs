//! Training a detector on several processes: the same run on any number of them.

use crate::common::{Workplace, records, with_data, words};

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
