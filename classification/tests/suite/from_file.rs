//! Networks that `torch.export` has written.

use std::path::Path;

use crate::common::{assert_says, make_networks, run_python, with_images};

#[test]
fn a_run_needs_its_file_only_once() {
    let work = with_images(4);
    let names = ["small", "test_resnet"];
    make_networks(&work, &names);
    let short = ["--epochs", "1", "--warmup-epochs", "0", "--input-size", "64"];
    for name in names {
        let file = format!("{name}.pt2");
        let begun = work.train(name, &[short.as_slice(), &["--model", &file]].concat()).succeeded();
        assert_says(&begun.err, &[&format!("weights  those of {file}, the head's random")]);
        let weights = format!("{name}.safetensors");
        let flags = ["--model", &file, "--backbone-weights", &weights];
        let loaded = work.train("loaded", &[short.as_slice(), &flags].concat()).succeeded();
        assert_says(&loaded.err, &["backbone from"]);
        std::fs::remove_dir_all(work.path("loaded")).unwrap();

        let probe = ["probe", "--data", "images", "--knn-only", "--k", "2", "--device", "cpu"];
        let said = work.run(&[probe.as_slice(), &["--model", &file]].concat()).succeeded().out;
        assert_says(&said, &["the file's own weights"]);
        std::fs::remove_file(work.path(&file)).unwrap();
        let went_on =
            work.run(&["train", "--output", name, "--resume", "--epochs", "2"]).succeeded();
        assert_says(&went_on.err, &["resuming after step 2"]);
        work.run(&["evaluate", "--weights", name, "--device", "cpu"]).succeeded();
        work.run(&[probe.as_slice(), &["--weights", name]].concat()).succeeded();

        let export = work.path(&format!("{name}/export"));
        let check = [Path::new("check"), &export, Path::new(name), Path::new("classifier")];
        run_python("graph_networks.py", &check);
        let again = ["export", "--weights", name, "--device", "cpu", "--output"];
        work.run(&[again.as_slice(), &["again.pth"]].concat()).succeeded();
        work.run(&[again.as_slice(), &["n.pt2", "--format", "pt2"]].concat())
            .refused(&["without the classifier that was learned"]);
    }
    let timm = ["--format", "timm", "--timm-name", "test_resnet", "--device", "cpu"];
    let export = ["export", "--weights", "test_resnet", "--output", "timm"];
    work.run(&[export.as_slice(), &timm].concat()).succeeded();
    run_python("graph_networks.py", &[Path::new("timm"), &work.path("timm"), Path::new("3")]);
}

/// Nothing is trained: the classifier is that which the file has.
#[test]
fn a_network_predicts_with_its_own_classifier() {
    let work = with_images(4);
    make_networks(&work, &["small", "pyramid", "test_resnet"]);
    std::fs::write(work.path("names.txt"), "one\ntwo\nthree\nfour\nfive\n").unwrap();
    let predict = |weights: &str, more: &[&str]| {
        let flags = ["--device", "cpu", "--threads", "1", "--json", "found.json", "images/val"];
        work.run(&[&["predict", "--weights", weights], more, &flags].concat())
    };
    let other = ["--model", "small.pt2", "--classes", "names.txt"];
    let cases: [(&str, &[&str], &str); 2] =
        [("small.pt2", &[], "0"), ("small.safetensors", &other, "1")];
    for (weights, more, number) in cases {
        predict(weights, more).succeeded();
        let check = [Path::new("predict"), &work.path(""), Path::new("small"), Path::new(number)];
        run_python("graph_networks.py", &[check.as_slice(), &["found.json".as_ref()]].concat());
    }
    let said = std::fs::read_to_string(work.path("found.json")).unwrap();
    assert!(["one", "five"].iter().all(|name| said.contains(name)), "{said}");

    predict("small.pt2", &["--model", "resnet18"]).refused(&["small.pt2", "no classifier"]);
    predict("pyramid.pt2", &[]).refused(&["pyramid is no classifier", "logits"]);
    predict("test_resnet.safetensors", &["--model", "small.pt2"]).refused(&["fits the model"]);
    work.run(&["evaluate", "--weights", "small.pt2", "--data", "images/val", "--device", "cpu"])
        .refused(&["3 class folders", "5 classes"]);
    work.run(&["export", "--weights", "small.pt2", "--output", "x", "--device", "cpu"])
        .refused(&["small.pt2"]);

    // A preset brings a rate, and this network has no blocks that drop.
    let short = ["--preset", "small-data", "--epochs", "1", "--warmup-epochs", "0"];
    let flags = ["--input-size", "64", "--model", "small.pt2"];
    let trained = work.train("trained", &[short.as_slice(), &flags].concat()).succeeded();
    assert_says(&trained.err, &["has no drop-path, so that a rate of 0.1 does nothing"]);
}
