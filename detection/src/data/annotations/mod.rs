//! Annotation files in COCO's format, as everyone writes them.
//!
//! pycocotools and detectron2 read such a file as plain dictionaries, and so do not mind what
//! else is in it. Here, too, only what is used is read: of an image its id, name and size, of a
//! category its id and name, of an annotation its ids, box, area, mask and `iscrowd`. A record
//! that can't be used is left out with a note; a file that is no annotation file is refused.
//!
//! Memory: the file's text and what is read out of it.

mod document;
mod id;
mod kind;
mod records;
mod repeats;
mod segmentation;
#[cfg(test)]
mod tests;
mod text;
mod values;

use std::collections::HashSet;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use hotcoco::{Annotation, COCO, Category, Dataset, Image};
use serde_json::value::RawValue;

pub(crate) use document::{Fields, List, Sink, walk};
pub use id::Id;
use id::{IdTable, Ids};
use records::{AnnotationRecord, Read, RecordIds};
pub(crate) use records::{BOX_RULE, ID_RULE, is_empty_list};
use repeats::{Known, different, once, references};
pub(crate) use segmentation::{given, segmentation};
pub(crate) use text::{abbreviated, decode};
pub(crate) use values::{bbox, broken, number};

use super::findings::{Finding, Notes, Severity};
use crate::{Error, Result};

/// Images, objects and categories by number, and their ids as they stand in the file.
///
/// The number of an image or a category is its id where all of the kind are numbers of 64 bits,
/// else its place in their order, from 1.
#[derive(Clone)]
pub struct GroundTruth {
    coco: Arc<COCO>,
    ids: Arc<Ids>,
}

impl GroundTruth {
    /// What an evaluation needs of an annotation file, and what was found odd in it. What refers
    /// to no image or category counts for nothing, as in pycocotools.
    ///
    /// # Errors
    /// [`Error::Format`] when the file is not in COCO's format or ids are ambiguous.
    pub fn read(path: &Path) -> Result<(Self, Vec<Finding>)> {
        let AnnotationFile { truth, notes, .. } = AnnotationFile::read(path)?;
        let findings = notes.finish();
        let fatal = |found: &&Finding| {
            found.severity == Severity::Error && found.code != "unknown_category"
        };
        match findings.iter().find(fatal) {
            Some(found) => Err(Error::format(path, found.to_string())),
            None => Ok((truth, findings)),
        }
    }

    /// The id of the image with this number.
    pub fn image_id(&self, number: u64) -> Id {
        self.ids.images.original(number)
    }

    /// The id of the category with this number.
    pub fn category_id(&self, number: u64) -> Id {
        self.ids.categories.original(number)
    }

    /// How a message names the annotation with this number.
    pub(crate) fn annotation(&self, number: u64) -> String {
        self.ids.annotation(number)
    }

    /// The number of the image with this id, and whether the id is of another type there.
    pub(crate) fn find_image(&self, id: &Id) -> Option<(u64, bool)> {
        self.ids.images.find(id).filter(|(number, _)| self.coco.get_img(*number).is_some())
    }

    /// The number of the category with this id, and whether the id is of another type there.
    pub(crate) fn find_category(&self, id: &Id) -> Option<(u64, bool)> {
        self.ids.categories.find(id).filter(|(number, _)| self.coco.get_cat(*number).is_some())
    }

    /// The records by number.
    pub(crate) fn shared(&self) -> Arc<COCO> {
        Arc::clone(&self.coco)
    }

    /// Leaves out the images that `keep` says no to, with their annotations.
    pub fn retain_images(&mut self, keep: impl Fn(&Image) -> bool) {
        let mut dataset = self.coco.dataset.clone();
        dataset.images.retain(keep);
        let kept: HashSet<u64> = dataset.images.iter().map(|image| image.id).collect();
        dataset.annotations.retain(|annotation| kept.contains(&annotation.image_id));
        self.coco = Arc::new(COCO::from_dataset(dataset));
    }

    /// Whether any object has a mask.
    pub fn has_masks(&self) -> bool {
        self.coco.dataset.annotations.iter().any(|object| object.segmentation.is_some())
    }
}

/// With its ids for numbers.
impl From<Arc<COCO>> for GroundTruth {
    fn from(coco: Arc<COCO>) -> Self {
        Self { coco, ids: Arc::default() }
    }
}

/// With its ids for numbers.
impl From<COCO> for GroundTruth {
    fn from(coco: COCO) -> Self {
        Self::from(Arc::new(coco))
    }
}

impl From<&GroundTruth> for GroundTruth {
    fn from(truth: &GroundTruth) -> Self {
        truth.clone()
    }
}

/// The records by number.
impl Deref for GroundTruth {
    type Target = COCO;

    fn deref(&self) -> &COCO {
        &self.coco
    }
}

/// What an annotation file holds.
pub(crate) struct AnnotationFile {
    pub truth: GroundTruth,
    /// Annotations in the file, those left out included.
    pub annotations: usize,
    pub notes: Notes,
}

impl AnnotationFile {
    /// Reads `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| data::Error::io(path, error))?;
        Self::parse(path, bytes)
    }

    /// Reads `bytes`, the content of `path`.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let mut text = decode(bytes).map_err(|problem| Error::format(path, problem))?;
        let mut records = Records::default();
        let walked = walk_leniently(&mut text, &mut records);
        let problem = match walked {
            Ok(()) if records.seen => None,
            Ok(()) => Some("it has neither annotations nor categories".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            let kind = kind::of_annotations(&text);
            let problem = format!("not an annotation file in COCO's format: {problem}{kind}");
            return Err(Error::format(path, problem));
        }
        drop(text);
        let [_, _, annotations] = records.counts;
        let (dataset, ids, notes) = records.assemble();
        let truth = GroundTruth { coco: Arc::new(COCO::from_dataset(dataset)), ids: Arc::new(ids) };
        Ok(Self { truth, annotations, notes })
    }
}

/// Walks through `text`, which may hold what Python writes for numbers that are not finite.
pub(crate) fn walk_leniently(text: &mut String, sink: &mut impl Sink) -> serde_json::Result<()> {
    let Err(error) = walk(text, sink) else { return Ok(()) };
    *text = text::quote_non_finite(text).ok_or(error)?;
    walk(text, sink)
}

/// The records of a file as they come.
#[derive(Default)]
struct Records {
    images: Vec<(Id, Image)>,
    categories: Vec<(Id, Category)>,
    annotations: Vec<Annotation>,
    /// Those of `annotations` whose ids are not all numbers of 64 bits, with their places.
    ids: Vec<(usize, RecordIds)>,
    /// Images, categories and annotations so far, those that can't be used included.
    counts: [usize; 3],
    /// Whether there were categories or annotations, and an object around them.
    seen: bool,
    notes: Notes,
}

/// Records of one list that were read.
enum Block {
    Images(Vec<Read<(Id, Image)>>),
    Categories(Vec<Read<(Id, Category)>>),
    Annotations(Vec<Read<AnnotationRecord>>),
    /// Of a list that is none of these.
    Other,
}

impl Sink for Records {
    type Block = Block;

    fn begin(&mut self, list: List) {
        self.seen |= matches!(list, List::Categories | List::Annotations);
        let Some(count) = self.count(list) else { return };
        *count = 0;
        match list {
            List::Root => (),
            List::Images => self.images.clear(),
            List::Categories => self.categories.clear(),
            List::Annotations => {
                self.annotations.clear();
                self.ids.clear();
            }
        }
    }

    fn read(list: List, first: usize, records: &[&RawValue]) -> Block {
        match list {
            List::Root => Block::Other,
            List::Images => Block::Images(read_all(records, first, records::image)),
            List::Categories => Block::Categories(read_all(records, first, records::category)),
            List::Annotations => Block::Annotations(read_all(records, first, records::annotation)),
        }
    }

    fn take(&mut self, list: List, block: Block) {
        let notes = &mut self.notes;
        let taken = match block {
            Block::Images(images) => take(images, notes, |image| self.images.push(image)),
            Block::Categories(categories) => {
                take(categories, notes, |category| self.categories.push(category))
            }
            Block::Annotations(annotations) => take(annotations, notes, |record| {
                let AnnotationRecord { annotation, ids: own } = record;
                self.ids.extend(own.map(|own| (self.annotations.len(), *own)));
                self.annotations.push(annotation);
            }),
            Block::Other => 0,
        };
        if let Some(count) = self.count(list) {
            *count += taken;
        }
    }
}

/// Reads `records`, the first of which is at place `first`.
fn read_all<T>(
    records: &[&RawValue],
    first: usize,
    read: fn(&RawValue, usize) -> Read<T>,
) -> Vec<Read<T>> {
    records.iter().zip(first..).map(|(record, place)| read(record, place)).collect()
}

/// Hands what can be used to `sink`; the number of all.
fn take<T>(records: Vec<Read<T>>, notes: &mut Notes, mut sink: impl FnMut(T)) -> usize {
    let all = records.len();
    for Read { record, notes: said } in records {
        said.into_iter().for_each(|(code, example)| notes.add(code, || example));
        record.into_iter().for_each(&mut sink);
    }
    all
}

impl Records {
    fn count(&mut self, list: List) -> Option<&mut usize> {
        match list {
            List::Root => None,
            List::Images => Some(&mut self.counts[0]),
            List::Categories => Some(&mut self.counts[1]),
            List::Annotations => Some(&mut self.counts[2]),
        }
    }

    /// Numbers everything, drops what is there twice and what refers to nothing.
    fn assemble(self) -> (Dataset, Ids, Notes) {
        let Self { mut images, mut categories, annotations, ids: foreign, mut notes, .. } = self;
        once(&mut images, &mut notes, "image", "duplicate_image_id", |a, b| {
            (&a.file_name, a.width, a.height) == (&b.file_name, b.width, b.height)
        });
        once(&mut categories, &mut notes, "category", "duplicate_category_id", |a, b| {
            a.name == b.name
        });
        let mut ids = Ids {
            images: IdTable::of(images.iter().map(|(id, _)| id.clone())),
            categories: IdTable::of(categories.iter().map(|(id, _)| id.clone())),
            annotations: None,
        };
        // Every id is in its table.
        let number = |table: &IdTable, id: &Id| table.find(id).map_or(0, |(number, _)| number);
        let numbered = |(id, mut image): (Id, Image)| {
            image.id = number(&ids.images, &id);
            image
        };
        let images: Vec<Image> = images.into_iter().map(numbered).collect();
        let numbered = |(id, mut category): (Id, Category)| {
            category.id = number(&ids.categories, &id);
            category
        };
        let categories: Vec<Category> = categories.into_iter().map(numbered).collect();
        let known = Known {
            images: images.iter().map(|image| image.id).collect(),
            categories: categories.iter().map(|category| category.id).collect(),
        };
        let (annotations, own) = references(annotations, foreign, &ids, &known, &mut notes);
        let (annotations, own) = different(annotations, own, &mut notes);
        ids.annotations = own;
        (Dataset { images, annotations, categories, ..Dataset::default() }, ids, notes)
    }
}
