//! Every command of the program on what a short run leaves behind.

mod export;
mod losses;

use std::collections::BTreeMap;

use crate::common::{Workplace, assert_says, empty, read, with_data, with_resnet, words};
use backbone::weights;
use detection::data::CocoDataset;
use detection::evaluation::Report;
use serde_json::Value;
use tch::Tensor;

fn png_size(work: &Workplace, name: &str) -> (u32, u32) {
    image::load_from_memory(&read(work.path(name))).unwrap().to_rgb8().dimensions()
}

/// All files under a folder with their content.
fn files(work: &Workplace, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(work.path(folder)).unwrap() {
        let name = format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy());
        if work.path(&name).is_dir() {
            found.extend(files(work, &name));
        } else {
            found.insert(name.clone(), read(work.path(&name)));
        }
    }
    found
}

#[test]
fn what_a_run_leaves_can_be_used() {
    let work = with_resnet(6);
    let finished = work.train("run", &["--eval-epochs", "1"]).succeeded();
    assert_says(
        &finished.err,
        &[
            "mask_rcnn_resnet18 with the settings of",
            "cpu",
            "6 of 6 with objects",
            "2 classes",
            "bbox AP",
        ],
    );
    assert_says(&finished.out, &["Average Precision", "report.json", "predictions.png"]);
    records(&work);
    evaluates(&work);
    predicts(&work);
    losses::predicts_without_loss(&work);
    losses::leaves_out_what_cannot_be_read(&work);
    runs_forward(&work);
    export::exports(&work);
    starts_from_weights(&work);
}

fn records(work: &Workplace) {
    let records = crate::common::records(&work.path("run"));
    let steps: Vec<&Value> = records.iter().filter(|r| r.get("loss").is_some()).collect();
    assert_eq!(steps.len(), 6);
    for record in steps {
        let parts = ["loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"];
        let sum: f64 = parts.iter().map(|name| record[*name].as_f64().unwrap()).sum();
        // Sums of the same numbers in another order.
        assert!((record["loss"].as_f64().unwrap() - sum).abs() < 1e-9, "{record}");
    }
    assert_eq!(records.iter().filter(|r| r.get("segm/AP50").is_some()).count(), 2);
    assert!(png_size(work, "run/predictions.png").0 > 100);
    let report: Report = serde_json::from_value(work.json("run/report.json")).unwrap();
    assert_eq!((report.images, report.segm.unwrap().classes.len()), (3, 2));
    for file in ["config.toml", "checkpoints/best.safetensors", "export/mask_rcnn_resnet18.pth"] {
        assert!(work.path("run").join(file).exists(), "{file}");
    }
}

fn evaluates(work: &Workplace) {
    let told = work.run(&["evaluate", "--weights", "run", "--output", "scores"]).succeeded();
    assert_says(&told.out, &["bbox", "segm", "maxDets=100", "class", "AR100", "results.segm.json"]);
    // The last evaluation of the run again.
    assert_eq!(work.json("scores/report.json"), work.json("run/report.json"));
    for kind in ["bbox", "segm"] {
        for picture in ["precision-recall", "confusion", "errors"] {
            assert!(png_size(work, &format!("scores/{picture}.{kind}.png")).0 > 50);
        }
        // Its own results, scored from the file, give the same figures.
        let results = format!("scores/results.{kind}.json");
        let annotations = "demo/annotations/instances_val.json";
        let arguments = ["evaluate", "--results", &results, "--annotations", annotations];
        work.run(&[arguments.as_slice(), &["--output", "again"]].concat()).succeeded();
        assert_eq!(work.json("again/report.json")[kind], work.json("scores/report.json")[kind]);
    }
    // The exported weights are the run's.
    let export = "run/export/mask_rcnn_resnet18.pth";
    let arguments = ["evaluate", "--weights", export, "--preset", "mask_rcnn_resnet50_1x"];
    let more = ["--config", "short.toml", "--output", "exported", "--annotations"];
    let annotations = ["demo/annotations/instances_val.json"];
    work.run(&[arguments.as_slice(), &more, &annotations].concat()).succeeded();
    assert_eq!(work.json("exported/report.json"), work.json("run/report.json"));
}

fn predicts(work: &Workplace) {
    let predict = |output: &str, images: &[&str]| {
        let arguments = ["predict", "--weights", "run", "--output", output];
        // So that there is something to draw after a few steps.
        let threshold = ["--score-threshold", "0.06"];
        work.run(&[arguments.as_slice(), &threshold, images].concat()).succeeded()
    };
    let told = predict("folder", &["demo/val"]);
    assert_says(&told.out, &["3 images", "predictions.json"]);
    let file = "demo/val/000001.jpg";
    predict("file", &[file]);
    predict("glob", &["demo/val/*1.jpg"]);
    assert!(read(work.path("file/000001.jpg")) == read(work.path("folder/000001.jpg")));
    assert_eq!(work.json("glob/predictions.json"), work.json("file/predictions.json"));
    // There may be a legend beneath.
    let (drawn, image) = (png_size(work, "file/000001.jpg"), png_size(work, file));
    assert!(drawn.0 == image.0 && drawn.1 >= image.1, "{drawn:?} of {image:?}");

    let found = work.json("folder/predictions.json");
    assert_eq!(found["images"].as_array().unwrap().len(), 3);
    assert_eq!(found["categories"].as_array().unwrap().len(), 2);
    for annotation in found["annotations"].as_array().unwrap() {
        assert!(annotation["score"].as_f64().unwrap() >= 0.06, "{annotation}");
        assert!(annotation["segmentation"]["counts"].is_string(), "{annotation}");
    }
    // It is a data set in COCO's format.
    let path = work.path("folder/predictions.json");
    let dataset = CocoDataset::open(&path, Some(&work.path("demo/val"))).unwrap();
    assert_eq!((dataset.len(), dataset.categories().len()), (3, 2));

    // A PNG stays one, broken files are left out, and nothing but those is an error.
    std::fs::write(work.path("photos/broken.jpg"), b"no picture").unwrap();
    let told = predict("mixed", &["photos"]);
    assert_says(&told.err, &["skipped photos/broken.jpg"]);
    assert_eq!(png_size(work, "mixed/0.png").0, 320);
    let arguments = ["predict", "--weights", "run", "--output", "none", "photos/broken.jpg"];
    work.run(&arguments).refused(&["none of 1 image can be read"]);
    std::fs::remove_file(work.path("photos/broken.jpg")).unwrap();
    let arguments = ["predict", "--weights", "run", "--output", "quiet", "--no-pictures", file];
    let told = work.run(&arguments).succeeded().out;
    assert!(!work.path("quiet/000001.jpg").exists() && !told.contains("drawn"), "{told}");
}

fn runs_forward(work: &Workplace) {
    let image = Tensor::rand([3, 64, 96], tch::kind::FLOAT_CPU) * 255.0;
    let batch = BTreeMap::from([("image".to_owned(), image)]);
    weights::write_safetensors(work.path("batch.safetensors"), &batch, &BTreeMap::new()).unwrap();
    let forward = |dtype: &str| {
        let arguments = ["forward", "--weights", "run", "--batch", "batch.safetensors"];
        let more = ["--out", "out.safetensors", "--dtype", dtype];
        work.run(&[arguments.as_slice(), &more].concat()).succeeded();
        weights::read(work.path("out.safetensors")).unwrap().tensors
    };
    let (single, double) = (forward("float32"), forward("float64"));
    for (level, side) in [(2, [16, 24]), (3, [8, 12]), (4, [4, 6]), (5, [2, 3]), (6, [1, 2])] {
        let name = format!("inference.fpn.p{level}");
        assert_eq!(double[&name].size(), [1, 32, side[0], side[1]], "{name}");
        assert_eq!(double[&name].kind(), tch::Kind::Double);
        // Rounding in float32 through some twenty layers.
        let apart = (&double[&name] - &single[&name]).abs().max().double_value(&[]);
        let scale = double[&name].abs().max().double_value(&[]);
        assert!(apart < 1e-4 * scale, "{name}: {apart} of {scale}");
    }
    let count = double["inference.proposals.logits"].size()[0];
    assert_eq!(double["inference.proposals.boxes"].size(), [count, 4]);
    let found = double["inference.detections.scores"].size()[0];
    assert_eq!(double["inference.detections.masks28"].size(), [found, 1, 28, 28]);
    work.run(&["forward", "--weights", "run", "--batch", "out.safetensors", "--out", "x"])
        .refused(&["no tensor `image`"]);
}

fn starts_from_weights(work: &Workplace) {
    let more = ["--backbone-weights", "run", "--epochs", "1", "--eval-epochs", "0"];
    let told = work.train("next", &[&more, ["--freeze", "5"].as_slice()].concat()).succeeded();
    assert_says(&told.err, &["backbone from run"]);
    // All of it is frozen: its weights are still the first run's.
    let section = |run: &str| {
        let path = work.path(run).join("checkpoints/last.safetensors");
        engine::checkpoint::CheckpointFile::open(&path).unwrap().section("model").unwrap()
    };
    let (first, next) = (section("run"), section("next"));
    let mut compared = 0;
    for (name, tensor) in first.iter().filter(|(name, _)| name.contains("bottom_up")) {
        assert!(tensor.equal(&next[name]), "{name}");
        compared += 1;
    }
    assert!(compared > 100, "{compared}");
    let head = "roi_heads.box_head.fc1.weight";
    assert!(!first[head].equal(&next[head]), "the heads learn");
    // Boxes alone, and the backbone's norms on their running statistics.
    let more = ["--masks", "false", "--norm-eval", "--epochs", "1"];
    let told = work.train("boxes", &more).succeeded();
    assert!(!told.out.contains("segm"), "{}", told.out);
    // Its file is called by what it holds, and is told from one with masks.
    let export = "boxes/export/faster_rcnn_resnet18.pth";
    let images = ["--output", "box-found", "demo/val"];
    let preset = ["--preset", "mask_rcnn_resnet50_1x", "--config", "short.toml"];
    let predict = [["predict", "--weights", export].as_slice(), &preset, &images].concat();
    work.run(&predict).refused(&[export, "Faster R-CNN", "--masks false"]);
    work.run(&[predict.as_slice(), &["--masks", "false"]].concat()).succeeded();
    let norm = "backbone.bottom_up.bn1.running_mean";
    assert!(section("boxes")[norm].equal(&Tensor::zeros([64], tch::kind::FLOAT_CPU)));
}

/// Changes both annotation files of the demo data.
fn change(work: &Workplace, change: impl Fn(&mut Value)) {
    for part in ["train", "val"] {
        let name = format!("demo/annotations/instances_{part}.json");
        let mut file = work.json(&name);
        change(&mut file);
        std::fs::write(work.path(&name), file.to_string()).unwrap();
    }
}

#[test]
fn boxes_without_masks_make_a_detector_of_boxes() {
    let work = with_data(3);
    change(&work, |file| {
        for object in file["annotations"].as_array_mut().unwrap() {
            object.as_object_mut().unwrap().remove("segmentation");
        }
    });
    let once = ["--epochs", "1"];
    work.train("none", &once).refused(&["instances_train.json", "--masks false"]);
    let told = work.train("run", &[&once, ["--masks", "false"].as_slice()].concat()).succeeded();
    assert!(!told.err.contains("note:"), "{}", told.err);
    let told = work.run(&["evaluate", "--weights", "run", "--output", "scores"]).succeeded();
    assert!(told.out.contains("bbox") && !told.out.contains("segm"), "{}", told.out);
    let arguments = ["predict", "--weights", "run", "--score-threshold", "0.06"];
    work.run(&[arguments.as_slice(), &["--output", "found", "demo/val"]].concat()).succeeded();
    let arguments = ["evaluate", "--results", "scores/results.bbox.json"];
    let more = ["--annotations", "demo/annotations/instances_val.json", "--output", "again"];
    work.run(&[arguments.as_slice(), &more].concat()).succeeded();
    assert_eq!(work.json("again/report.json"), work.json("scores/report.json"));
    let found = work.json("found/predictions.json");
    assert!(found["annotations"][0].get("segmentation").is_none(), "{found}");
}

#[test]
fn other_peoples_annotations_train_and_score() {
    let work = with_data(3);
    // As exporters have them: texts for ids, further fields, and one object without a mask.
    change(&work, |file| {
        file["info"] = serde_json::json!({"year": "2024", "version": 3});
        file["annotations"][0]["segmentation"] = Value::Null;
        for (list, field) in [("images", "id"), ("annotations", "image_id")] {
            for record in file[list].as_array_mut().unwrap() {
                record[field] = format!("image {}", record[field]).into();
                record["date_captured"] = 0.into();
            }
        }
    });
    // The classes of the validation data have other ids, in another order.
    let name = "demo/annotations/instances_val.json";
    let mut val = work.json(name);
    for (list, field) in [("categories", "id"), ("annotations", "category_id")] {
        for record in val[list].as_array_mut().unwrap() {
            record[field] = (10 - record[field].as_i64().unwrap()).into();
        }
    }
    std::fs::write(work.path(name), val.to_string()).unwrap();

    let told = work.train("run", &["--epochs", "1"]).succeeded();
    let note = "instances_val.json: left out of mask AP, without a mask: 1 object, annotation 1";
    assert_says(&told.err, &[note, "segm AP"]);
    let most = ["--max-detections", "300"];
    let arguments = ["evaluate", "--weights", "run", "--output", "scores"];
    let told = work.run(&[arguments.as_slice(), &most].concat()).succeeded();
    assert_says(&told.out, &["maxDets=300", "segm AR300"]);
    assert_says(&told.err, &["left out of mask AP"]);
    let results = work.json("scores/results.bbox.json");
    assert!(results[0]["image_id"].as_str().unwrap().starts_with("image "), "{results}");
    for kind in ["bbox", "segm"] {
        let results = format!("scores/results.{kind}.json");
        let arguments = ["evaluate", "--results", &results, "--annotations", name];
        let more = [&most, ["--output", "again"].as_slice()].concat();
        work.run(&[arguments.as_slice(), &more].concat()).succeeded();
        assert_eq!(work.json("again/report.json")[kind], work.json("scores/report.json")[kind]);
    }
    work.run(&[arguments.as_slice(), &["--max-detections", "5"]].concat())
        .refused(&["max-detections is 5, but"]);
}

#[test]
fn data_is_made_and_checked() {
    let work = with_data(3);
    let again = "make-demo --photos photos --output demo --train 3 --val 3 --size 64 --classes 2";
    work.run(&words(again)).refused(&["demo is not empty", "--overwrite"]);
    let again = "make-demo --photos photos --output nine --classes 9";
    work.run(&words(again)).refused(&["classes is 9"]);

    let whole = files(&work, "demo");
    for inside in ["photos", "photos/demo"] {
        work.run(&["make-demo", "--photos", "photos", "--output", inside, "--overwrite"])
            .refused(&["the folder of the photographs"]);
    }
    work.run(&["make-demo", "--photos", "demo/train", "--output", "demo", "--overwrite"])
        .refused(&["the folder of the photographs"]);
    let annotations = "demo/annotations/instances_train.json";
    work.run(&["check-data", annotations, "--report", annotations]).refused(&["which is read"]);
    assert!(files(&work, "demo") == whole);
    let arguments = ["check-data", annotations, "--read-images", "--report", "report.json"];
    let told = work.run(&arguments).succeeded().out;
    assert_says(&told, &["3 images", "objects", "report.json"]);
    assert_eq!(work.json("report.json")["images"], 3);
    let mut broken = work.json(annotations);
    broken["annotations"][0]["category_id"] = 55.into();
    std::fs::write(work.path("broken.json"), broken.to_string()).unwrap();
    let told = work.run(&["check-data", "broken.json", "--images", "demo/train"]);
    assert!(!told.ok && told.err.is_empty(), "a finding, not an error: {}", told.err);
    assert_says(&told.out, &["55"]);
    work.run(&["check-data", "missing.json"]).refused(&["missing.json"]);
}

#[test]
fn presets_and_help() {
    let work = empty();
    let list = work.run(&["presets"]).succeeded().out;
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names.len(), 7, "{list}");
    // What is chosen depends on the data.
    for name in names.into_iter().filter(|name| *name != "auto") {
        let toml = work.run(&["presets", name]).succeeded().out;
        std::fs::write(work.path("p.toml"), &toml).unwrap();
        let dump = |flags: &[&str]| {
            let paths = ["train", "--data", "d", "--output", "o", "--dump-config"];
            work.run(&[paths.as_slice(), flags].concat()).succeeded().out
        };
        // Over a preset that changes nothing.
        let over = ["--preset", "mask_rcnn_resnet50_1x", "--config", "p.toml"];
        assert_eq!(dump(&over), dump(&["--preset", name]));
    }
    work.explains_its_commands("detect", 9);
}
