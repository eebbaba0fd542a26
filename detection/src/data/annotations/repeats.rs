//! What is there twice, and what refers to something that is not there.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use hotcoco::Annotation;

use super::id::{Id, IdTable, Ids};
use super::records::RecordIds;
use super::segmentation::same;
use crate::data::findings::Notes;

/// The numbers of the images and categories that there are.
pub(super) struct Known {
    pub images: HashSet<u64>,
    pub categories: HashSet<u64>,
}

/// The ids of annotations as they stand in the file, where they are not all numbers of 64 bits.
pub(super) type OwnIds = Option<Vec<Option<Id>>>;

/// Keeps the first record of every id. Others are noted: as written twice where they are the
/// same, with `code` where they differ.
pub(super) fn once<T>(
    records: &mut Vec<(Id, T)>,
    notes: &mut Notes,
    what: &str,
    code: &'static str,
    same: impl Fn(&T, &T) -> bool,
) {
    let mut first: HashMap<Id, usize> = HashMap::with_capacity(records.len());
    let mut kept: Vec<(Id, T)> = Vec::with_capacity(records.len());
    for (id, record) in records.drain(..) {
        match first.get(&id) {
            None => {
                first.insert(id.clone(), kept.len());
                kept.push((id, record));
            }
            Some(&place) => {
                let code = if same(&kept[place].1, &record) { "repeated_record" } else { code };
                notes.add(code, || format!("{what} {id}"));
            }
        }
    }
    *records = kept;
}

/// `annotations` with numbers for the ids of their images and categories, without those whose
/// image or category is not there.
pub(super) fn references(
    annotations: Vec<Annotation>,
    foreign: Vec<(usize, RecordIds)>,
    ids: &Ids,
    known: &Known,
    notes: &mut Notes,
) -> (Vec<Annotation>, OwnIds) {
    let mut own: OwnIds = (!foreign.is_empty()).then(Vec::new);
    let mut foreign = foreign.into_iter().peekable();
    let mut kept = Vec::with_capacity(annotations.len());
    for (place, mut annotation) in annotations.into_iter().enumerate() {
        let record = foreign.next_if(|(at, _)| *at == place).map(|(_, record)| record);
        let record = record.unwrap_or_else(|| RecordIds {
            own: Some(annotation.id.into()),
            image: annotation.image_id.into(),
            category: annotation.category_id.into(),
        });
        let name = || match &record.own {
            Some(id) => format!("annotation {id}"),
            None => format!("annotation at place {place}"),
        };
        let find = |table: &IdTable, id: &Id, known: &HashSet<u64>| {
            table.find(id).filter(|(number, _)| known.contains(number))
        };
        let (image, category) = (&record.image, &record.category);
        let Some((number, other)) = find(&ids.categories, category, &known.categories) else {
            notes.add("unknown_category", || format!("{} (category {category})", name()));
            continue;
        };
        annotation.category_id = number;
        let Some((number, another)) = find(&ids.images, image, &known.images) else {
            notes.add("unknown_image", || format!("{} (image {image})", name()));
            continue;
        };
        annotation.image_id = number;
        if other || another {
            let example = || format!("{} (image {image}, category {category})", name());
            notes.add("id_of_other_type", example);
        }
        if let Some(own) = &mut own {
            own.push(record.own);
        }
        kept.push(annotation);
    }
    (kept, own)
}

/// What tells annotations of one id apart, but for their masks.
#[derive(PartialEq, Eq, Hash)]
struct Content {
    id: Id,
    image: u64,
    category: u64,
    bbox: Option<[u64; 4]>,
    area: Option<u64>,
    crowd: bool,
}

impl Content {
    fn of(annotation: &Annotation, id: Id) -> Self {
        Self {
            id,
            image: annotation.image_id,
            category: annotation.category_id,
            bbox: annotation.bbox.map(|bbox| bbox.map(f64::to_bits)),
            area: annotation.area.map(f64::to_bits),
            crowd: annotation.iscrowd,
        }
    }
}

/// `annotations` without those that are written twice. Where ids are no numbers, or annotations
/// that differ have the same, they are numbered by their places.
pub(super) fn different(
    annotations: Vec<Annotation>,
    own: OwnIds,
    notes: &mut Notes,
) -> (Vec<Annotation>, OwnIds) {
    if own.is_none() && are_different(annotations.iter().map(|annotation| annotation.id)) {
        return (annotations, None);
    }
    let renumbered = own.is_some();
    let own = own.unwrap_or_else(|| annotations.iter().map(|a| Some(a.id.into())).collect());
    let mut seen: HashSet<Id> = HashSet::new();
    let mut contents: HashMap<Content, Vec<usize>> = HashMap::new();
    let (mut kept, mut ids): (Vec<Annotation>, _) = (Vec::new(), Vec::new());
    let mut ambiguous = false;
    for (annotation, id) in annotations.into_iter().zip(own) {
        if let Some(id) = &id {
            let twins = contents.entry(Content::of(&annotation, id.clone())).or_default();
            let mask = annotation.segmentation.as_ref();
            if twins.iter().any(|&twin: &usize| same(kept[twin].segmentation.as_ref(), mask)) {
                notes.add("repeated_record", || format!("annotation {id}"));
                continue;
            }
            twins.push(kept.len());
            if !seen.insert(id.clone()) {
                ambiguous = true;
                notes.add("duplicate_annotation_id", || format!("annotation {id}"));
            }
        }
        kept.push(annotation);
        ids.push(id);
    }
    if !renumbered && !ambiguous {
        return (kept, None);
    }
    for (number, annotation) in (1..).zip(&mut kept) {
        annotation.id = number;
    }
    (kept, Some(ids))
}

fn are_different<T: Eq + Hash>(mut all: impl Iterator<Item = T>) -> bool {
    let mut seen = HashSet::new();
    all.all(|one| seen.insert(one))
}
