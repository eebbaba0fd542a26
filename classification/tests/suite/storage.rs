//! Runs of classifiers in object storage, and the weights there.

use crate::common::{RUN, Stored, assert_says, with_images, words};
use crate::resume::SETTINGS;

#[test]
fn a_run_goes_on_elsewhere_and_its_best_checkpoint_is_used_from_there() {
    let work = with_images(5);
    let stored = Stored::goes_on_elsewhere(&work, &words(SETTINGS));
    // A machine that has nothing of it reads what the machine has that trained it.
    let folder = stored.folder("three");
    let scores = |machine: &str, weights: &str| {
        let arguments =
            ["evaluate", "--weights", weights, "--data", "images/val", "--device", "cpu"];
        stored.run(machine, &arguments).succeeded().out
    };
    assert_eq!(scores("four", RUN), scores("three", folder.to_str().unwrap()));
    let more = ["--weights", RUN, "--epochs", "1", "--warmup-epochs", "0"];
    let begun = stored.run("four", &work.train_arguments("begun", &more)).succeeded();
    assert_says(&begun.err, &["initial weights from", "checkpoints/best"]);
    let export =
        ["export", "--weights", RUN, "--format", "official", "--output", "s3://bucket/c.pth"];
    assert_says(&stored.run("four", &export).succeeded().out, &["→ s3://bucket/c.pth"]);
    let predict = ["predict", "--weights", "s3://bucket/c.pth", "--model", "tiny.pt2"];
    stored.run("four", &[&predict[..], &["images/val/red/000.png"]].concat()).succeeded();
}
