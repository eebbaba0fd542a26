//! Networks that `torch.export` has written.

use std::path::Path;

use backbone::weights::StateDict;

use crate::common::{
    Workplace, assert_says, make_networks, reconstruct, run_python, section, shorter, with_images,
};

/// Images to train on, and networks in files.
fn with_networks(names: &[&str]) -> Workplace {
    let work = with_images(8);
    make_networks(&work, names);
    work
}

/// The values of one tensor in both.
fn same(one: &StateDict, other: &StateDict, name: &str) -> bool {
    one[name].equal(&other[name])
}

#[test]
fn a_run_needs_its_file_only_once() {
    let work = with_networks(&["small", "test_resnet"]);
    for (name, stem) in [("small", "stem.0.weight"), ("test_resnet", "conv1.0.weight")] {
        let file = format!("{name}.pt2");
        let begun = work.train(name, &shorter(&["--model", &file])).succeeded();
        assert_says(&begun.err, &[&format!("weights  those of {file}"), "encoder"]);
        let model = section(&work, name, "model");
        let stem = format!("sparse_encoder.sp_cnn.{stem}");
        assert!(work.checkpoint(name).sections().contains("graph"));

        std::fs::remove_file(work.path(&file)).unwrap();
        let went_on =
            work.run(&["train", "--output", name, "--resume", "--epochs", "2"]).succeeded();
        assert_says(&went_on.err, &["resuming after step 2"]);
        assert!(!went_on.err.contains("weights  those"), "{}", went_on.err);
        assert!(!same(&model, &section(&work, name, "model"), &stem), "it learned nothing");

        let export = work.path(&format!("{name}/export"));
        run_python(
            "graph_networks.py",
            &[Path::new("check"), &export, Path::new(name), Path::new("spark")],
        );
        assert!(!export.join("timm").exists());
        let (_, found) = reconstruct(&work, name, &["--input-size", "64"]);
        assert_eq!(found["reconstruction"].size(), [2, 3, 64, 64]);
        let said = work.run(&["inspect", name]).succeeded().out;
        assert_says(&said, &[&format!("model: {name}, complete"), "SparK decoder: yes"]);
    }
}

#[test]
fn exports_keep_the_networks_names() {
    let work = with_networks(&["test_resnet"]);
    work.train("run", &shorter(&["--model", "test_resnet.pt2"])).succeeded();
    let export = |more: &[&str]| work.run(&[&["export", "--weights", "run"], more].concat());
    for format in ["torchvision", "detectron2", "mmdet"] {
        let message = format!("format is {format}, but test_resnet was read from a .pt2 file");
        export(&["--format", format]).refused(&[&message]);
    }
    export(&["--format", "timm"]).refused(&["--timm-name NAME says which of timm's models"]);
    export(&["--format", "timm", "--timm-name", "test_resnet", "--output", "timm"]).succeeded();
    run_python("graph_networks.py", &[Path::new("timm"), &work.path("timm"), Path::new("10")]);
    export(&["--format", "pt2"]).succeeded();
    let beside = work.path("run/export/test_resnet_spark.pt2");
    assert!(beside.exists());
    // What was exported is a network again.
    let said = work.run(&["inspect", "run/export/test_resnet_spark.pt2"]).succeeded().out;
    assert_says(&said, &["layer4"]);

    work.train("registered", &shorter(&["--model", "resnet18"])).succeeded();
    work.run(&["export", "--weights", "registered", "--format", "pt2"])
        .refused(&["format is pt2, but resnet18 was not read from a .pt2 file"]);
    let named = ["--format", "timm", "--timm-name", "x"];
    work.run(&[["export", "--weights", "registered"].as_slice(), &named].concat())
        .refused(&["timm-name is x, but resnet18 has a name of timm's"]);
}

#[test]
fn stages_may_be_chosen() {
    let work = with_networks(&["small"]);
    let stages = ["--model", "small.pt2", "--stages", "stage2,stage3"];
    work.train("run", &shorter(&stages)).succeeded();
    // Half the total stride, so one doubling less in the decoder.
    let model = section(&work, "run", "model");
    assert!(model.contains_key("dense_decoder.dec.3.conv.0.weight"), "{:?}", model.keys());
    assert!(!model.contains_key("dense_decoder.dec.4.conv.0.weight"));
    assert!(!model.contains_key("sparse_encoder.sp_cnn.stage4.0.weight"));
    let refused = [&shorter(&["--model", "small.pt2", "--stages", "stage2,nowhere"])[..]].concat();
    work.train("other", &refused).refused(&["nowhere"]);
    work.train("other", &shorter(&["--model", "resnet18", "--stages", "layer1"]))
        .refused(&["stages is layer1, but resnet18 is no .pt2 file"]);
    work.train("other", &shorter(&["--model", "small.pt2", "--input-size", "40"]))
        .refused(&["input-size is 40, but its sides must be positive multiples of 32"]);
    work.train("other", &shorter(&["--model", "gone.pt2"])).refused(&["gone.pt2"]);
    work.train("other", &shorter(&["--model", "small.pt2", "--drop-path", "0.1"]))
        .refused(&["drop"]);
    assert!(!work.path("other").exists());
}

#[test]
fn weights_go_over_those_of_the_file() {
    let work = with_networks(&["small"]);
    let weights = ["--model", "small.pt2", "--init-weights", "small.safetensors"];
    let told = work.train("run", &shorter(&weights)).succeeded();
    assert_says(&told.err, &["initial weights from small.safetensors"]);
    assert!(!told.err.contains("weights  those"), "{}", told.err);
}

#[test]
fn what_runs_on_the_whole_grid_alone_is_not_pretrained() {
    let work = with_networks(&["attending", "small"]);
    let said = work.run(&["inspect", "attending.pt2"]).succeeded().out;
    assert_says(&said, &["for 1 image of 3×64×64", "softmax"]);
    let refused = shorter(&["--model", "attending.pt2"]);
    work.train("run", &refused).refused(&["attending cannot be pretrained: "]);
    assert!(!work.path("run").exists());

    let pattern = ["mask-pattern", "--output", "p.png", "--input-size", "128", "--model"];
    work.run(&[pattern.as_slice(), &["attending.pt2"]].concat()).refused(&["cannot be pretrained"]);
    let said = work.run(&[pattern.as_slice(), &["small.pt2"]].concat()).succeeded().out;
    assert_says(&said, &["small on 128×128 pixels", "stage 4 (1/32)", "sparse  "]);
}
