//! Files in COCO's format: where they lie, and parts of them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use data::files::coco_annotations;
use engine::run_dir::display_path;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The annotation files of `folder` to train on and to validate with, if it has any.
pub fn annotation_files(folder: &Path) -> Result<Option<[PathBuf; 2]>> {
    let beside = ["train.json", "val.json"].map(|name| folder.join(name));
    let annotations = folder.join("annotations");
    let found = match beside.iter().any(|path| path.exists()) {
        true => beside.map(|path| vec![path]),
        false if annotations.is_dir() => {
            let found = |split| {
                coco_annotations(&annotations, split)
                    .with_context(|| format!("cannot read {}", display_path(&annotations)))
            };
            [found("train")?, found("val")?]
        }
        false => return Ok(None),
    };
    let only = |paths: Vec<PathBuf>, split: &str| match paths.as_slice() {
        [only] if only.is_file() => Ok(only.clone()),
        [] | [_] => {
            let what = if split == "val" { "no validation data" } else { "no labels to train on" };
            bail!(
                "{} has {what}: neither {split}.json nor one file \
                 annotations/instances_{split}*.json is there",
                display_path(folder)
            )
        }
        several => bail!(
            "{} has {} files instances_{split}*.json: leave one of them there",
            display_path(&annotations),
            several.len()
        ),
    };
    let [training, held_out] = found;
    Ok(Some([only(training, "train")?, only(held_out, "val")?]))
}

/// A file in COCO's format, its records as they are written.
#[derive(Serialize, Deserialize)]
pub struct CocoFile<'a> {
    #[serde(borrow)]
    pub images: Vec<&'a RawValue>,
    #[serde(borrow)]
    annotations: Vec<&'a RawValue>,
    #[serde(borrow)]
    categories: &'a RawValue,
}

#[derive(Deserialize)]
struct ImageRecord {
    id: serde_json::Value,
    file_name: String,
}

#[derive(Deserialize)]
struct AnnotationRecord {
    image_id: serde_json::Value,
}

impl<'a> CocoFile<'a> {
    pub fn parse(path: &Path, text: &'a str) -> Result<Self> {
        serde_json::from_str(text).with_context(|| {
            format!(
                "{} is not in COCO's format, an object with images, annotations and categories",
                display_path(path)
            )
        })
    }

    fn image(&self, path: &Path, record: &RawValue) -> Result<ImageRecord> {
        serde_json::from_str(record.get()).with_context(|| {
            let known = record.get().chars().take(80).collect::<String>();
            format!("{}: an image without id or file_name: {known}", display_path(path))
        })
    }

    /// The ids of the images, as text.
    pub fn ids(&self, path: &Path) -> Result<Vec<String>> {
        let id = |record: &&RawValue| Ok(self.image(path, record)?.id.to_string());
        self.images.iter().map(id).collect()
    }

    /// The image that an annotation is of.
    fn image_of(path: &Path, record: &RawValue) -> Result<String> {
        let read: AnnotationRecord = serde_json::from_str(record.get())
            .with_context(|| format!("{}: an annotation without image_id", display_path(path)))?;
        Ok(read.image_id.to_string())
    }

    /// The ids of the images that have objects.
    pub fn with_objects(&self, path: &Path) -> Result<HashSet<String>> {
        self.annotations.iter().map(|record| Self::image_of(path, record)).collect()
    }

    /// The same with these images alone.
    pub fn only(&self, path: &Path, places: &[usize]) -> Result<String> {
        let ids = self.ids(path)?;
        let chosen: HashSet<&str> = places.iter().map(|&at| ids[at].as_str()).collect();
        let images = places.iter().map(|&at| self.images[at]).collect();
        let mut annotations = Vec::new();
        for record in &self.annotations {
            if chosen.contains(Self::image_of(path, record)?.as_str()) {
                annotations.push(*record);
            }
        }
        Ok(serde_json::to_string(&Self { images, annotations, categories: self.categories })?)
    }

    /// The folder that the first image lies in: as COCO has them `train2017` beside `annotations`,
    /// or `images`, `train` or `val`, or the folder itself.
    pub fn image_folder(&self, folder: &Path, path: &Path) -> Result<PathBuf> {
        let first = self.images.first();
        let first = first.with_context(|| format!("{} has no images", display_path(path)))?;
        let name = self.image(path, first)?.file_name;
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let split = stem.strip_prefix("instances_").unwrap_or(stem);
        let places = [folder.join(split), folder.join("images"), folder.to_owned()];
        let found = places.iter().find(|place| place.join(&name).is_file());
        let looked: Vec<String> = places.iter().map(|place| display_path(place)).collect();
        found.cloned().with_context(|| {
            format!(
                "{name}, the first image of {}, is in none of {}",
                display_path(path),
                looked.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COCO: &str = r#"{"info": {}, "images": [
        {"id": 1, "file_name": "a.png", "width": 4, "height": 4}, {"id": "x", "file_name": "b.png"},
        {"id": 3, "file_name": "c.png"}], "annotations": [{"id": 9, "image_id": "x", "bbox": [0.10, 1, 2, 3]},
        {"id": 8, "image_id": 3}], "categories": [{"id": 1, "name": "thing"}]}"#;

    #[test]
    fn a_share_of_coco_keeps_records_as_they_are() {
        let path = Path::new("train.json");
        let file = CocoFile::parse(path, COCO).unwrap();
        let with = file.with_objects(path).unwrap();
        assert_eq!(file.ids(path).unwrap().iter().filter(|id| with.contains(*id)).count(), 2);
        let text = file.only(path, &[0, 1]).unwrap();
        let part = CocoFile::parse(path, &text).unwrap();
        assert_eq!((part.images.len(), part.annotations.len()), (2, 1));
        assert_eq!(
            part.annotations[0].get(),
            r#"{"id": 9, "image_id": "x", "bbox": [0.10, 1, 2, 3]}"#
        );
        assert_eq!(part.categories.get(), r#"[{"id": 1, "name": "thing"}]"#);
    }

    #[test]
    fn files_that_are_not_cocos_are_named() {
        for (text, part) in
            [("[]", "is not in COCO's format"), (r#"{"images": []}"#, "is not in COCO's format")]
        {
            let told = CocoFile::parse(Path::new("a.json"), text).map(|_| ()).unwrap_err();
            assert!(format!("{told:#}").contains(part), "{told:#}");
        }
    }
}
