//! `detect export`.

use test_hub::Hub;

use super::{files, read};
use crate::common::{Finished, Workplace, assert_says};

/// A file, and a folder that is read from a hub without a preset, with the names of its classes.
pub fn exports(work: &Workplace) {
    let export = |more: &[&str]| work.run(&[&["export", "--weights", "run"], more].concat());
    export(&["--output", "det.pth"]).succeeded();
    assert!(read(work.path("det.pth")) == read(work.path("run/export/mask_rcnn_resnet18.pth")));
    export(&["--output", "det.txt"]).refused(&["must end in .pth, .safetensors or .pkl"]);
    export(&["--output", "x.pth", "--repo", "me/det"]).refused(&["--repo is me/det, but"]);

    let hub_folder = ["--format", "hub", "--license", "mit", "--output", "det"];
    let told = export(&hub_folder).succeeded().out;
    assert_says(&told, &["hf upload OWNER/NAME det", "predictions.png in it shows images"]);
    let card = String::from_utf8(read(work.path("det/README.md"))).unwrap();
    let facts = ["license: mit\n", "# mask_rcnn_resnet18\n", "| AP of masks", "| classes | 2: "];
    assert_says(&card, &facts);
    assert_says(&card, &["](predictions.png)", "MODEL.WEIGHTS", "detect predict --weights hf:"]);
    assert!(!card.contains(work.path("").to_str().unwrap()));
    let before = files(work, "det");
    export(&hub_folder).refused(&["det is not empty"]);
    assert!(files(work, "det") == before);

    let hub = Hub::start();
    hub.upload("me/det", &work.path("det")).unwrap();
    let predict = |weights: &str, output: &str| {
        let arguments = ["predict", "--weights", weights, "--output", output];
        let more = ["--score-threshold", "0.06", "--no-pictures", "demo/val"];
        let mut command = work.command(&[&arguments[..], &more].concat());
        hub.show_to(&mut command, &work.path("cache"));
        Finished::from(command.output().unwrap())
    };
    predict("hf:me/det", "from-hub").succeeded();
    predict("run", "from-run").succeeded();
    let found = |folder: &str| work.json(&format!("{folder}/predictions.json"));
    assert_eq!(found("from-hub"), found("from-run"));
    assert!(found("from-hub")["annotations"].as_array().is_some_and(|found| !found.is_empty()));
    let mut config = work.json("det/config.json");
    config["classes"].as_array_mut().unwrap().pop();
    std::fs::write(work.path("det/config.json"), config.to_string()).unwrap();
    let arguments = ["predict", "--weights", "det", "--output", "none", "demo/val"];
    work.run(&arguments).refused(&["det tells apart 2 classes, but its config.json"]);
}
