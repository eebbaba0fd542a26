//! Class folders and archives, as torchvision's `ImageFolder` and Python's `tarfile` read them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use data::names::readable;
use data::{Dataset, DatasetOptions, LabelledDataset};

use super::*;

/// A name of the manifest, as ours are written.
fn name(hexed: &Value) -> String {
    let digits = hexed.as_str().expect("a name");
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
    readable(OsStr::from_bytes(&bytes))
}

#[test]
fn agree_with_torchvision_and_tarfile() {
    let (folder, manifest) = run_reference("dataset_reference.py");
    let options = DatasetOptions { listings: None, ..Default::default() };

    let dataset = LabelledDataset::open(folder.path().join("classes"), &options).unwrap();
    let expected: Vec<String> = list(&manifest["folders"], "classes").iter().map(name).collect();
    assert_eq!(dataset.classes(), expected);
    let images: Vec<(String, usize)> = list(&manifest["folders"], "images")
        .iter()
        .map(|image| (name(&image[0]), image[1].as_u64().unwrap() as usize))
        .collect();
    let found = (0..dataset.len()).map(|i| (dataset.images().name(i), dataset.label(i)));
    assert_eq!(found.collect::<Vec<_>>(), images);

    for archive in list(&manifest, "archives") {
        let file = text(archive, "file");
        let dataset = Dataset::open(folder.path().join(file), &options).unwrap();
        let expected: Vec<(String, Option<Vec<u8>>)> = list(archive, "members")
            .iter()
            .map(|member| {
                let content = member[1].as_str().map(|content| content.as_bytes().to_vec());
                (format!("{file}:{}", name(&member[0])), content)
            })
            .collect();
        let found = (0..dataset.len()).map(|i| (dataset.name(i), dataset.read(i).ok()));
        assert_eq!(found.collect::<Vec<_>>(), expected, "{file}");
    }
}
