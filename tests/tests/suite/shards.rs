//! Our shards read by WebDataset, and WebDataset's by us.

use std::collections::BTreeMap;
use std::fs;

use data::shards::{Folder, LabelsFrom, Pictures, ShardSettings, Watcher, check, make};
use data::{ByteSize, Dataset, DatasetOptions};
use image::{Rgb, RgbImage};
use serde_json::Value;
use spark_tests::manifest::list;
use spark_tests::run_python;

struct Unseen;

impl Watcher for Unseen {
    fn begin(&self, _: u64, _: u64) {}

    fn advance(&self, _: u64, _: u64) {}
}

fn options() -> DatasetOptions {
    DatasetOptions { listings: None, ..DatasetOptions::default() }
}

fn sha256(bytes: &[u8]) -> String {
    test_hub::sha256(bytes)
}

#[test]
fn webdataset_reads_our_shards_and_we_read_its() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    // Names that WebDataset would take apart: dots, spaces, two formats of one name, and one too
    // long for a header of tar.
    let long = "n".repeat(120);
    let files =
        ["ant/a.b.jpg", "ant/a c.png", "ant/same.jpg", "ant/same.png", "bee/猫.jpg", "bee/1.JPG"];
    for (number, file) in
        (0u8..).zip(files.iter().map(|&file| file.to_owned()).chain([format!("bee/{long}.png")]))
    {
        let path = photos.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_fn(50, 40, |x, y| Rgb([x as u8 * 5, y as u8 * 6, number * 30]))
            .save(path)
            .unwrap();
    }
    let pictures = Pictures::open(&photos, &options(), LabelsFrom::Auto).unwrap();
    let settings = ShardSettings { size: ByteSize(100_000), ..ShardSettings::default() };
    let ours = Folder::open(folder.path().join("ours")).unwrap();
    make(&pictures, &ours, &settings, 0.0, 2, &Unseen).unwrap();

    run_python("shards_reference.py", &[folder.path()]);
    let manifest: Value =
        serde_json::from_slice(&fs::read(folder.path().join("manifest.json")).unwrap()).unwrap();

    // Each of our images, its bytes and its class.
    let mut read: Vec<(String, i64)> = list(&manifest["ours"], "files")
        .iter()
        .map(|file| (file[1].as_str().unwrap().to_owned(), file[2].as_i64().unwrap()))
        .collect();
    let images = Dataset::open(&photos, &options()).unwrap();
    let mut expected: Vec<(String, i64)> = (0..images.len())
        .map(|index| {
            (sha256(&images.read(index).unwrap()), i64::from(images.name(index).starts_with("bee")))
        })
        .collect();
    read.sort();
    expected.sort();
    assert_eq!(read, expected);
    let labels: Vec<i64> = serde_json::from_value(manifest["ours"]["labels"].clone()).unwrap();
    assert_eq!(labels, [0, 0, 0, 0, 1, 1, 1]);
    for shape in list(&manifest["ours"], "shapes") {
        assert_eq!(*shape, serde_json::json!([3, 32, 32]));
    }

    // Each of its images, by name.
    let theirs = folder.path().join("theirs");
    let set = Dataset::open(theirs.join("x-{000000..000002}.tar"), &options()).unwrap();
    let found: BTreeMap<String, String> = (0..set.len())
        .map(|index| {
            assert!(set.image(index).is_ok());
            let name = set.name(index).rsplit(':').next().unwrap().to_owned();
            (name, sha256(&set.read(index).unwrap()))
        })
        .collect();
    let written = list(&manifest, "theirs").iter();
    let written =
        written.map(|file| serde_json::from_value::<(String, String)>(file.clone()).unwrap());
    assert_eq!(found, written.collect());
    let checked = check(&Folder::open(&theirs).unwrap(), 3, 2, &Unseen).unwrap();
    assert_eq!((checked.images, checked.problems), (10, Vec::new()));
}
