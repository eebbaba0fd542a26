//! Labels beside images in shards, and class folders in a store.

use data::{DatasetOptions, LabelledDataset};
use test_objects::Objects;

use crate::{SHARDS, archive, options, picture, shards};

fn labelled(dataset: &LabelledDataset) -> Vec<(String, String)> {
    let one = |image| {
        let class = dataset.classes()[dataset.label(image)].clone();
        (dataset.images().name(image), class)
    };
    (0..dataset.len()).map(one).collect()
}

#[test]
fn labels_in_shards_are_the_same_here_and_there() {
    let objects = Objects::start();
    let folder = shards(&objects);
    let plain = DatasetOptions { listings: None, ..DatasetOptions::default() };
    let open_here =
        || LabelledDataset::open(folder.path().join("shard-{0..2}.tar"), &plain).unwrap();
    let open_there = || LabelledDataset::open(SHARDS, &options(&objects)).unwrap();
    let here = open_here();
    assert_eq!(here.classes(), ["0", "1", "2"]);
    assert_eq!(labelled(&here)[4], ("shard-0.tar:004.png".into(), "1".into()));
    assert_eq!(here.counts(), [8, 8, 8]);
    assert_eq!(labelled(&open_there()), labelled(&here));
    // The whole folder and the whole prefix are read as what lies in them.
    let whole = [
        LabelledDataset::open(folder.path(), &plain).unwrap(),
        LabelledDataset::open("s3://bucket/set", &options(&objects)).unwrap(),
    ];
    assert_eq!(whole.each_ref().map(labelled), [labelled(&here), labelled(&here)]);
    // Their names lie beside them.
    let names = "ant\nbee\ncow\ndog\n";
    std::fs::write(folder.path().join("classes.txt"), names).unwrap();
    objects.put("bucket", "set/classes.txt", names);
    assert_eq!(open_here().classes(), ["ant", "bee", "cow", "dog"]);
    assert_eq!(labelled(&open_there()), labelled(&open_here()));
    let whole = LabelledDataset::open("s3://bucket/set/", &options(&objects)).unwrap();
    assert_eq!(labelled(&whole), labelled(&open_here()));
    let classes = ["bee", "ant"].map(str::to_owned);
    let error = LabelledDataset::open_as(SHARDS, &options(&objects), &classes).unwrap_err();
    assert!(error.to_string().contains("the label \"2\" is none of the 2 known"), "{error}");
}

#[test]
fn shards_without_labels_say_what_is_missing() {
    let objects = Objects::start();
    let members = [
        ("a.png".to_owned(), picture(0)),
        ("a.json".to_owned(), br#"{"label": "cat"}"#.to_vec()),
        ("b.png".to_owned(), picture(1)),
    ];
    objects.put("bucket", "x.tar", archive(&members));
    let error = LabelledDataset::open("s3://bucket/x.tar", &options(&objects)).unwrap_err();
    assert!(
        error.to_string().contains("1 of 2 images have no label, such as x.tar:b.png"),
        "{error}"
    );
}

#[test]
fn class_folders_in_a_store_are_those_of_a_disk() {
    let objects = Objects::start();
    let folder = tempfile::tempdir().unwrap();
    for (number, name) in
        ["b/1.png", "B/2.png", "a10/deep/x.png", "a2/z.png", "beside.png"].iter().enumerate()
    {
        let path = folder.path().join("train").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, picture(number)).unwrap();
    }
    objects.upload("bucket", "set/", folder.path()).unwrap();
    let plain = DatasetOptions { listings: None, ..DatasetOptions::default() };
    let here = LabelledDataset::open(folder.path().join("train"), &plain).unwrap();
    let there = LabelledDataset::open("s3://bucket/set/train", &options(&objects)).unwrap();
    assert_eq!(labelled(&there), labelled(&here));
    let error = LabelledDataset::open("s3://bucket/set/none", &options(&objects)).unwrap_err();
    assert!(error.to_string().contains("no class folders"), "{error}");
}
