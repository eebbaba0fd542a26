//! The entries of a results file as they stand there, before it is known what they refer to.

use std::collections::HashMap;

use hotcoco::Segmentation;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::data::Id;
use crate::data::annotations::{
    BOX_RULE, Fields, ID_RULE, List, Sink, abbreviated, bbox, broken, given, is_empty_list, number,
    segmentation,
};

const SCORE_RULE: &str = "a finite number";

/// One entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub image: Id,
    pub category: Id,
    pub bbox: Option<[f64; 4]>,
    pub segmentation: Option<Segmentation>,
    pub score: f64,
    /// What is wrong with its segmentation, which then is left out.
    pub problem: Option<String>,
}

/// An entry as most programs write it.
#[derive(Deserialize)]
struct Plain {
    image_id: u64,
    category_id: u64,
    #[serde(default)]
    bbox: Option<[f64; 4]>,
    #[serde(default)]
    segmentation: Option<Segmentation>,
    score: f64,
}

/// A results file: entries alone, or with the images and categories that they are of.
#[derive(Default)]
pub(super) struct Entries {
    /// By place; what can't be used with the problem.
    pub entries: Vec<Result<Entry, String>>,
    /// The file names of the images, where the file has its own.
    pub images: HashMap<Id, String>,
    /// The names of the categories, where the file has its own.
    pub categories: HashMap<Id, String>,
    /// Whether there was a list of entries.
    pub seen: bool,
}

/// What was read of one list.
pub(super) enum Block {
    Entries(Vec<Result<Entry, String>>),
    /// Ids with names, of those that have both.
    Names(Vec<(Id, String)>),
}

impl Sink for Entries {
    type Block = Block;

    fn begin(&mut self, list: List) {
        match list {
            List::Root | List::Annotations => {
                self.seen = true;
                self.entries.clear();
            }
            List::Images => self.images.clear(),
            List::Categories => self.categories.clear(),
        }
    }

    fn read(list: List, _first: usize, records: &[&RawValue]) -> Block {
        match list {
            List::Root | List::Annotations => {
                Block::Entries(records.iter().map(|record| entry(record)).collect())
            }
            List::Images => Block::Names(named(records, "file_name")),
            List::Categories => Block::Names(named(records, "name")),
        }
    }

    fn take(&mut self, list: List, block: Block) {
        match block {
            Block::Entries(entries) => self.entries.extend(entries),
            Block::Names(names) if list == List::Images => self.images.extend(names),
            Block::Names(names) => self.categories.extend(names),
        }
    }
}

fn named(records: &[&RawValue], field: &str) -> Vec<(Id, String)> {
    let named = |record: &&RawValue| {
        let fields = Fields::of(record)?;
        let name: String = serde_json::from_str(fields.get(field)?).ok()?;
        Some((Id::parse(fields.get("id")?)?, name)).filter(|(_, name)| !name.is_empty())
    };
    records.iter().filter_map(named).collect()
}

fn entry(record: &RawValue) -> Result<Entry, String> {
    if let Ok(plain) = serde_json::from_str::<Plain>(record.get()) {
        return Ok(Entry {
            image: plain.image_id.into(),
            category: plain.category_id.into(),
            bbox: plain.bbox,
            segmentation: plain.segmentation.and_then(given),
            score: plain.score,
            problem: None,
        });
    }
    let Some(fields) = Fields::of(record) else {
        return Err(format!("{}, but an entry is an object", abbreviated(record.get())));
    };
    let id = |field| {
        let value = fields.get(field);
        value.and_then(Id::parse).ok_or_else(|| broken(field, value, ID_RULE))
    };
    let value = fields.get("score");
    let score = value.and_then(number).ok_or_else(|| broken("score", value, SCORE_RULE))?.0;
    let bbox = match fields.given("bbox").filter(|value| !is_empty_list(value)) {
        None => None,
        Some(value) => Some(bbox(value).ok_or_else(|| broken("bbox", Some(value), BOX_RULE))?.0),
    };
    let (mask, problem) = match fields.given("segmentation") {
        None => (None, None),
        Some(value) => match segmentation(value) {
            Ok(mask) => (mask, None),
            Err(rule) => (None, Some(broken("segmentation", Some(value), rule))),
        },
    };
    let (image, category) = (id("image_id")?, id("category_id")?);
    Ok(Entry { image, category, bbox, segmentation: mask, score, problem })
}
