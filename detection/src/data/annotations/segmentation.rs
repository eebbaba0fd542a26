//! Masks as people's files have them.

use hotcoco::{Rle, Segmentation, mask};
use serde_json::{Map, Value};

use super::values::{numbers, whole};

const RULE: &str = "a list of polygons, each [x, y, x, y, …], or an object with size and counts";
const RUNS: &str =
    "an object whose counts are run lengths, or the text that they are compressed to";
const SIZE: &str = "an object whose size is the image's height and width";

/// The mask in a segmentation; none where the segmentation is empty. What is read here, but
/// covers nothing or does not fit its image, is for the checks of the objects.
///
/// # Errors
/// The rule that it breaks.
pub(crate) fn segmentation(json: &str) -> Result<Option<Segmentation>, &'static str> {
    match serde_json::from_str::<Value>(json).map_err(|_| RULE)? {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::Object(fields) if fields.is_empty() => Ok(None),
        Value::Object(fields) => run_lengths(&fields).map(Some),
        Value::Array(parts) if parts.iter().all(Value::is_object) && !parts.is_empty() => {
            union(&parts).map(Some)
        }
        Value::Array(parts) => polygons(&parts),
        _ => Err(RULE),
    }
}

fn polygons(parts: &[Value]) -> Result<Option<Segmentation>, &'static str> {
    let polygons: Option<Vec<Vec<f64>>> =
        parts.iter().map(|part| numbers(part).map(|(polygon, _)| polygon)).collect();
    Ok(given(Segmentation::Polygon(polygons.ok_or(RULE)?)))
}

/// A segmentation that holds something: polygons without corners are left out.
pub(crate) fn given(mut segmentation: Segmentation) -> Option<Segmentation> {
    if let Segmentation::Polygon(polygons) = &mut segmentation {
        polygons.retain(|polygon| !polygon.is_empty());
        if polygons.is_empty() {
            return None;
        }
    }
    Some(segmentation)
}

fn run_lengths(fields: &Map<String, Value>) -> Result<Segmentation, &'static str> {
    let (sides, _) = fields.get("size").and_then(numbers).ok_or(SIZE)?;
    let sides: Option<Vec<u32>> = sides.into_iter().map(whole).collect();
    let size: [u32; 2] = sides.and_then(|sides| sides.try_into().ok()).ok_or(SIZE)?;
    match fields.get("counts") {
        Some(Value::String(text)) => {
            Ok(Segmentation::CompressedRle { size, counts: without_bytes_literal(text) })
        }
        Some(runs) => {
            let (runs, _) = numbers(runs).ok_or(RUNS)?;
            let runs: Option<Vec<u32>> = runs.into_iter().map(whole).collect();
            Ok(Segmentation::UncompressedRle { size, counts: runs.ok_or(RUNS)? })
        }
        None => Err(RUNS),
    }
}

/// Python's `str` of the bytes that pycocotools encodes to is `b'…'`. No compressed counts have
/// an apostrophe.
fn without_bytes_literal(counts: &str) -> String {
    let inner = counts.strip_prefix("b'").and_then(|inner| inner.strip_suffix('\''));
    inner.map_or_else(|| counts.to_owned(), |inner| inner.replace("\\\\", "\\"))
}

/// pycocotools joins the parts of a list of run lengths.
fn union(parts: &[Value]) -> Result<Segmentation, &'static str> {
    let part = |part: &Value| -> Result<Rle, &'static str> {
        let runs = run_lengths(part.as_object().ok_or(RULE)?)?;
        runs.rle_ref().and_then(|runs| runs.to_rle().ok()).ok_or(RUNS)
    };
    let parts: Vec<Rle> = parts.iter().map(part).collect::<Result<_, _>>()?;
    let joined = mask::merge(&parts, false).map_err(|_| SIZE)?;
    let (size, counts) = ([joined.h, joined.w], mask::rle_to_string(&joined));
    Ok(Segmentation::CompressedRle { size, counts })
}

/// Whether two records have the same mask.
pub(crate) fn same(one: Option<&Segmentation>, other: Option<&Segmentation>) -> bool {
    use Segmentation::{CompressedRle, Polygon, UncompressedRle};
    match (one, other) {
        (None, None) => true,
        (Some(Polygon(a)), Some(Polygon(b))) => a == b,
        (
            Some(CompressedRle { size: a, counts: runs }),
            Some(CompressedRle { size: b, counts: others }),
        ) => (a, runs) == (b, others),
        (
            Some(UncompressedRle { size: a, counts: runs }),
            Some(UncompressedRle { size: b, counts: others }),
        ) => (a, runs) == (b, others),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> Result<Option<String>, &'static str> {
        let read = segmentation(json)?;
        Ok(read.map(|read| serde_json::to_string(&read).unwrap()))
    }

    #[test]
    fn every_spelling_of_a_mask_is_read() {
        let runs = r#"{"size":[2,3],"counts":[1,2,3]}"#;
        let same = |json: &str| Ok(Some(json.to_owned()));
        for empty in ["null", "[]", "[[]]", "[[], []]", "{}", "\"\""] {
            assert_eq!(text(empty), Ok(None), "{empty}");
        }
        assert_eq!(text("[[1, \"2\", 3.5], []]"), same("[[1.0,2.0,3.5]]"));
        assert_eq!(text(runs), same(runs));
        assert_eq!(text(r#"{"counts": [1.0, "2", 3], "size": [2.0, "3"], "x": 1}"#), same(runs));
        let compressed = r#"{"size":[2,3],"counts":"1\\2"}"#;
        assert_eq!(text(compressed), same(compressed));
        assert_eq!(text(r#"{"size": [2, 3], "counts": "b'1\\\\2'"}"#), same(compressed));
        // pycocotools.mask.merge of the two: the first three pixels.
        let parts =
            r#"[{"size": [2, 3], "counts": [0, 2, 4]}, {"size": [2, 3], "counts": [1, 2, 3]}]"#;
        assert_eq!(text(parts), same(r#"{"size":[2,3],"counts":"033"}"#));
    }

    #[test]
    fn what_is_no_mask_breaks_a_rule() {
        for (json, rule) in [
            ("\"polygon\"", RULE),
            ("[1, 2, 3, 4, 5, 6]", RULE),
            ("[[1, 2, \"NaN\", 4, 5, 6]]", RULE),
            ("[[[1, 2], [3, 4], [5, 6]]]", RULE),
            ("true", RULE),
            (r#"{"counts": [1]}"#, SIZE),
            (r#"{"size": [1], "counts": [1]}"#, SIZE),
            (r#"{"size": [1, -1], "counts": [1]}"#, SIZE),
            (r#"{"size": [1, 1]}"#, RUNS),
            (r#"{"size": [1, 1], "counts": [0.5, 0.5]}"#, RUNS),
            (r#"{"size": [1, 1], "counts": [-1, 2]}"#, RUNS),
            (r#"[{"size": [1, 2], "counts": [2]}, {"size": [2, 1], "counts": [2]}]"#, SIZE),
        ] {
            assert_eq!(text(json), Err(rule), "{json}");
        }
    }
}
