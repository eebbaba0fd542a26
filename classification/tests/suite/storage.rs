//! Runs of classifiers in object storage, and the weights there.

use test_objects::Objects;

use crate::common::{CLASSES, Finished, RUN, Stored, Workplace, assert_says, with_images, words};
use crate::resume::SETTINGS;

/// Two shards of `split` with images of all classes, each with its class's name beside it.
fn shards(work: &Workplace, split: &str) {
    for shard in 0..2 {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: String, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, bytes).unwrap();
        };
        for class in CLASSES {
            let folder = work.path(&format!("images/{split}/{class}"));
            let mut images: Vec<_> =
                std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            images.sort();
            for image in images.iter().skip(shard).step_by(2) {
                let key = format!("{class}-{}", image.file_stem().unwrap().display());
                add(format!("{key}.png"), &std::fs::read(image).unwrap());
                add(format!("{key}.cls"), class.as_bytes());
            }
        }
        let bytes = builder.into_inner().unwrap();
        std::fs::create_dir_all(work.path("set")).unwrap();
        std::fs::write(work.path(&format!("set/{split}-{shard}.tar")), bytes).unwrap();
    }
}

#[test]
fn labelled_shards_in_a_store_are_those_of_this_machine() {
    let (work, objects) = (with_images(5), Objects::start());
    for split in ["train", "val"] {
        shards(&work, split);
    }
    objects.upload("bucket", "set/", &work.path("set")).unwrap();
    let run = |output: &str, place: &str| {
        let [train, val] = ["train", "val"].map(|split| format!("{place}set/{split}-{{0..1}}.tar"));
        let more = ["--train-data", &train, "--val-data", &val];
        let mut command = work.command(&work.train_arguments(output, &more));
        objects.show_to(&mut command).env("XDG_CACHE_HOME", work.path("home"));
        Finished::from(command.output().unwrap()).succeeded()
    };
    run("here", "");
    let there = run("there", "s3://bucket/");
    assert_says(&there.err, &["15 to train on, 12 for validation, 3 classes"]);
    assert_eq!(work.curve("there"), work.curve("here"));
    let export = "export/tiny_classifier.safetensors";
    assert_eq!(work.bits("there", export)["export"], work.bits("here", export)["export"]);
}

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
