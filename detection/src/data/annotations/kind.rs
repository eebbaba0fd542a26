//! What a JSON file is that is not the one asked for.

use serde_json::value::RawValue;

use super::document::Fields;

/// Kinds by the fields that tell them, the first that has all of them.
const OBJECTS: [(&[&str], &str); 11] = [
    (&["_via_img_metadata"], "a project of VIA: export it in COCO's format"),
    (
        &["shapes", "imagePath"],
        "LabelMe's labels of one image: convert all of them with labelme2coco",
    ),
    (&["asset", "regions"], "VoTT's labels of one image: export them in COCO's format"),
    (&["categories", "items"], "a data set of Datumaro: export it in COCO's format"),
    (&["type", "features"], "GeoJSON: convert it to COCO's format"),
    (&["nc", "names"], "the settings of a YOLO data set: export that in COCO's format"),
    (&["frames"], "labels of a video, frame by frame: convert them to COCO's format"),
    (&["data", "annotations"], "a task of Label Studio: export it in COCO's format"),
    (&["labels", "name"], "labels of BDD100K or Scalabel: convert them with bdd100k.label.to_coco"),
    (&["data_list", "metainfo"], "a data set of mmdet 3: convert it to COCO's format"),
    (&["database"], "labels of a video: convert them to COCO's format"),
];

const LISTS: [(&[&str], &str); 6] = [
    (
        &["image_id", "score"],
        "a list of results, as `detect evaluate --results` takes one: the annotations are another file",
    ),
    (
        &["image_id", "bbox"],
        "a list of annotations alone: put it into an object with images and categories",
    ),
    (&["data", "annotations"], "tasks of Label Studio: export them in COCO's format"),
    (&["file_name", "annotations"], "detectron2's list of images: convert it to COCO's format"),
    (&["filename", "ann"], "mmdet's list of images: convert it to COCO's format"),
    (&["name", "labels"], "labels of BDD100K: convert them with bdd100k.label.to_coco"),
];

/// What a file that is no annotation file looks like, as the end of a sentence; nothing of what
/// is no JSON.
pub(crate) fn of_annotations(text: &str) -> String {
    if let Some(fields) = Fields::parse(text) {
        if let Some(kind) = known(&OBJECTS, &fields) {
            return format!("; it looks like {kind}");
        }
        let first = fields.names().next().and_then(|name| fields.get(name)).and_then(Fields::parse);
        if first.is_some_and(|first| first.get("regions").is_some()) {
            return "; it looks like labels of VIA: export them in COCO's format".into();
        }
        let names: Vec<&str> = fields.names().take(5).collect();
        let names = if names.is_empty() { "nothing".into() } else { names.join(", ") };
        return format!("; it has {names}");
    }
    let Ok(records) = serde_json::from_str::<Vec<&RawValue>>(text) else { return String::new() };
    let first = records.first().and_then(|record| Fields::of(record));
    match first.as_ref().and_then(|first| known(&LISTS, first)) {
        Some(kind) => format!("; it looks like {kind}"),
        None => format!("; it is a list of {}", records.len()),
    }
}

fn known(kinds: &[(&[&str], &'static str)], fields: &Fields) -> Option<&'static str> {
    let has_all = |names: &[&str]| names.iter().all(|name| fields.get(name).is_some());
    kinds.iter().find(|(names, _)| has_all(names)).map(|(_, kind)| *kind)
}
