//! Images, categories and annotations out of their records. What programs usually write is read
//! straight away; any other record field by field, with a note on what is odd.

use hotcoco::{Annotation, Category, Image, Segmentation};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::document::Fields;
use super::id::Id;
use super::segmentation::{given, segmentation};
use super::text::abbreviated;
use super::values::{bbox, broken, flag, number, whole};

pub(crate) const ID_RULE: &str = "a whole number or a text";
pub(crate) const BOX_RULE: &str = "four finite numbers: x, y, width and height";

/// A record, if it can be used, and what is to be said of it: codes of findings with an example.
pub(crate) struct Read<T> {
    pub record: Option<T>,
    pub notes: Vec<(&'static str, String)>,
}

impl<T> Read<T> {
    fn sound(record: T) -> Self {
        Self { record: Some(record), notes: Vec::new() }
    }

    fn unusable(code: &'static str, problem: String) -> Self {
        Self { record: None, notes: vec![(code, problem)] }
    }
}

/// An annotation; its ids apart where they are not all numbers of 64 bits.
pub(crate) struct AnnotationRecord {
    pub annotation: Annotation,
    pub ids: Option<Box<RecordIds>>,
}

/// The ids of an annotation as they stand in the file.
pub(crate) struct RecordIds {
    pub own: Option<Id>,
    pub image: Id,
    pub category: Id,
}

/// An annotation as COCO's own files have it.
#[derive(Deserialize)]
struct Plain {
    id: u64,
    image_id: u64,
    category_id: u64,
    #[serde(default)]
    bbox: Option<[f64; 4]>,
    #[serde(default)]
    area: Option<f64>,
    #[serde(default)]
    segmentation: Option<Segmentation>,
    #[serde(default)]
    iscrowd: u8,
}

/// The annotation at `place` of its list.
pub(crate) fn annotation(record: &RawValue, place: usize) -> Read<AnnotationRecord> {
    match serde_json::from_str::<Plain>(record.get()) {
        Ok(plain) if plain.bbox.is_some() => {
            let annotation = Annotation {
                id: plain.id,
                image_id: plain.image_id,
                category_id: plain.category_id,
                bbox: plain.bbox,
                area: plain.area,
                segmentation: plain.segmentation.and_then(given),
                iscrowd: plain.iscrowd != 0,
                ..Annotation::default()
            };
            Read::sound(AnnotationRecord { annotation, ids: None })
        }
        _ => annotation_by_fields(record, place),
    }
}

fn annotation_by_fields(record: &RawValue, place: usize) -> Read<AnnotationRecord> {
    const UNUSABLE: &str = "bad_annotation";
    let fields = match fields(record, place) {
        Ok(fields) => fields,
        Err(problem) => return Read::unusable(UNUSABLE, problem),
    };
    let own = fields.given("id").and_then(Id::parse);
    let name = match &own {
        Some(id) => format!("annotation {id}"),
        None => format!("annotation at place {place}"),
    };
    let mut notes = Vec::new();
    if own.is_none() {
        let id = fields.get("id").map(|id| format!(" (id is {})", abbreviated(id)));
        notes.push(("annotation_without_id", format!("place {place}{}", id.unwrap_or_default())));
    }
    let read = geometry(&fields, &name, &mut notes).and_then(|annotation| {
        let id = |field| {
            let value = fields.get(field);
            value.and_then(Id::parse).ok_or_else(|| broken(field, value, ID_RULE))
        };
        let ids = RecordIds { own, image: id("image_id")?, category: id("category_id")? };
        Ok(AnnotationRecord { annotation, ids: Some(Box::new(ids)) })
    });
    match read {
        Ok(record) => Read { record: Some(record), notes },
        Err(problem) => Read::unusable(UNUSABLE, format!("{name} ({problem})")),
    }
}

/// All of an annotation but its ids.
fn geometry(
    fields: &Fields,
    name: &str,
    notes: &mut Vec<(&'static str, String)>,
) -> Result<Annotation, String> {
    let as_text = |field: &str| ("number_as_text", format!("{name} ({field})"));
    let mut annotation = Annotation::default();
    if let Some(value) = fields.given("bbox").filter(|value| !is_empty_list(value)) {
        let (sides, text) = bbox(value).ok_or_else(|| broken("bbox", Some(value), BOX_RULE))?;
        annotation.bbox = Some(sides);
        notes.extend(text.then(|| as_text("bbox")));
    }
    if let Some(value) = fields.given("area") {
        match number(value) {
            Some((area, text)) => {
                annotation.area = Some(area);
                notes.extend(text.then(|| as_text("area")));
            }
            None => notes.push(("bad_area", format!("{name} (area is {})", abbreviated(value)))),
        }
    }
    match fields.get("iscrowd") {
        None => (),
        Some("null") => notes.push(("null_iscrowd", name.to_owned())),
        Some(value) => {
            annotation.iscrowd =
                flag(value).ok_or_else(|| broken("iscrowd", Some(value), "0 or 1"))?;
        }
    }
    if let Some(value) = fields.given("segmentation") {
        match segmentation(value) {
            Ok(mask) => annotation.segmentation = mask,
            Err(rule) => {
                let problem = broken("segmentation", Some(value), rule);
                notes.push(("unreadable_mask", format!("{name} ({problem})")));
            }
        }
    }
    if annotation.bbox.is_none() && annotation.segmentation.is_none() {
        return Err(broken(
            "bbox",
            fields.get("bbox"),
            &format!("{BOX_RULE}; nor is there a mask"),
        ));
    }
    Ok(annotation)
}

pub(crate) fn is_empty_list(json: &str) -> bool {
    json.strip_prefix('[').is_some_and(|rest| rest.trim_start() == "]")
}

fn fields(record: &RawValue, place: usize) -> Result<Fields<'_>, String> {
    Fields::of(record).ok_or_else(|| {
        format!("place {place} ({}, but a record is an object)", abbreviated(record.get()))
    })
}

/// The fields of a record that can't be used without an id, and that.
fn fields_and_id(record: &RawValue, place: usize) -> Result<(Fields<'_>, Id), String> {
    let fields = fields(record, place)?;
    let id = fields.get("id");
    let parsed = id.and_then(Id::parse);
    let parsed = parsed.ok_or_else(|| format!("place {place} ({})", broken("id", id, ID_RULE)))?;
    Ok((fields, parsed))
}

/// The image at `place`, with its id. What a side or name can't be used of stays 0 or empty.
pub(crate) fn image(record: &RawValue, place: usize) -> Read<(Id, Image)> {
    let (fields, id) = match fields_and_id(record, place) {
        Ok(found) => found,
        Err(problem) => return Read::unusable("bad_image", problem),
    };
    let mut notes = Vec::new();
    let mut side = |field: &str| {
        let Some(value) = fields.given(field) else { return 0 };
        let read = number(value).and_then(|(side, text)| Some((whole(side)?, text)));
        match read {
            Some((side, text)) => {
                notes.extend(text.then(|| ("number_as_text", format!("image {id} ({field})"))));
                side
            }
            None => {
                let problem = broken(field, Some(value), "a whole number of pixels");
                notes.push(("bad_size", format!("image {id} ({problem})")));
                0
            }
        }
    };
    let (mut width, mut height) = (side("width"), side("height"));
    if width.checked_mul(height).is_none() {
        let problem = format!("its {width}×{height} pixels are more than 32 bits count");
        notes.push(("bad_size", format!("image {id} ({problem})")));
        (width, height) = (0, 0);
    }
    let file_name = text(&fields, "file_name").unwrap_or_default();
    if fields.given("not_exhaustive_category_ids").is_some() {
        notes.push(("lvis", format!("image {id}")));
    }
    let image = Image { file_name, width, height, ..Image::default() };
    Read { record: Some((id, image)), notes }
}

/// The category at `place`, with its id; without a name it is called after that.
pub(crate) fn category(record: &RawValue, place: usize) -> Read<(Id, Category)> {
    let (fields, id) = match fields_and_id(record, place) {
        Ok(found) => found,
        Err(problem) => return Read::unusable("bad_category", problem),
    };
    let mut notes = Vec::new();
    let name = text(&fields, "name").filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| {
        notes.push(("category_without_name", format!("category {id}")));
        format!("category {id}")
    });
    Read { record: Some((id, Category { name, ..Category::default() })), notes }
}

/// A text, or a number as one.
fn text(fields: &Fields, field: &str) -> Option<String> {
    let value = fields.given(field)?;
    let number = || number(value).map(|_| value.to_owned());
    serde_json::from_str(value).ok().or_else(number)
}
