//! Backbones that `torch.export` has written.

use crate::common::{assert_says, make_networks, with_data};

#[test]
fn a_run_needs_its_backbones_file_only_once() {
    let work = with_data(4);
    make_networks(&work, &["small"]);
    let flags = ["--backbone", "small.pt2", "--iterations", "2"];
    let begun = work.train("run", &flags).succeeded();
    assert_says(&begun.err, &["mask_rcnn_small with", "the backbone's those of small.pt2"]);
    let weights = ["--backbone-weights", "small.safetensors", "--freeze-at", "2"];
    let loaded = work.train("loaded", &[flags.as_slice(), &weights].concat()).succeeded();
    assert_says(&loaded.err, &["backbone from", "official naming"]);
    let start = &backbone::weights::read(work.path("small.safetensors")).unwrap().tensors;
    let model = work.checkpoint("loaded").section("model").unwrap();
    let is_same = |name: &str| model[&format!("backbone.bottom_up.{name}")].equal(&start[name]);
    assert!(is_same("stem.0.weight") && is_same("stage1.1.running_mean"), "frozen");
    assert!(!is_same("stage2.0.weight") && !is_same("stage4.0.weight"), "learned");

    std::fs::remove_file(work.path("small.pt2")).unwrap();
    let went_on =
        work.run(&["train", "--output", "run", "--resume", "--iterations", "3"]).succeeded();
    assert_says(&went_on.err, &["resuming after step 2 of 3"]);
    let cpu = ["--device", "cpu"];
    let evaluate = ["evaluate", "--weights", "run", "--output", "scores"];
    work.run(&[evaluate.as_slice(), &cpu].concat()).succeeded();
    let predict = ["predict", "--weights", "run", "--output", "found", "photos/0.png"];
    work.run(&[predict.as_slice(), &cpu].concat()).succeeded();
    let exported = backbone::weights::read(work.path("run/export/mask_rcnn_small.pth")).unwrap();
    let name = "backbone.bottom_up.stage3.1.running_var";
    let own = work.checkpoint("run").section("model").unwrap();
    assert!(exported.tensors[name].size() == own[name].size());
    assert!(exported.tensors.contains_key("backbone.fpn_lateral5.weight"));
}
