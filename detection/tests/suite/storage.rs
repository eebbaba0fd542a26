//! Runs of detectors in object storage, and the weights there.

use crate::common::{RUN, Stored, assert_says, read, with_data, words};
use crate::resume::SETTINGS;

#[test]
fn a_run_goes_on_elsewhere_and_is_used_from_there() {
    let work = with_data(6);
    let stored = Stored::goes_on_elsewhere(&work, &words(SETTINGS));
    // A machine that has nothing of it finds what the machine finds that trained it.
    let folder = stored.folder("three");
    let predict = |machine: &str, weights: &str, output: &str| {
        let arguments = ["predict", "--weights", weights, "--output", output, "demo/val"];
        stored.run(machine, &arguments).succeeded();
        read(work.path(output).join("predictions.json"))
    };
    assert_eq!(predict("four", RUN, "far"), predict("three", folder.to_str().unwrap(), "near"));
    let begun = work.train_arguments("begun", &["--weights", RUN, "--epochs", "1"]);
    assert_says(&stored.run("four", &begun).succeeded().err, &["initial weights from"]);
    let export = ["export", "--weights", RUN, "--output", "s3://bucket/det.pth"];
    assert_says(&stored.run("four", &export).succeeded().out, &["→ s3://bucket/det.pth"]);
}
