//! What a Python script wrote: files in a folder, and a manifest that says what they are.

use serde_json::Value;
use tempfile::TempDir;

use crate::run_python;

/// Runs `tests/python/SCRIPT` on a folder; that, and the `manifest.json` in it.
pub fn run_reference(script: &str) -> (TempDir, Value) {
    let folder = tempfile::tempdir().unwrap();
    run_python(script, &[folder.path()]);
    let manifest = std::fs::read(folder.path().join("manifest.json")).unwrap();
    (folder, serde_json::from_slice(&manifest).unwrap())
}

/// A number without a fraction.
pub fn number(case: &Value, key: &str) -> usize {
    case[key].as_u64().unwrap_or_else(|| panic!("{key} in {case}")) as usize
}

/// Any number.
pub fn real(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap_or_else(|| panic!("{key} in {case}"))
}

/// A text.
pub fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_else(|| panic!("{key} in {case}"))
}

/// A list that is not empty.
pub fn list<'a>(case: &'a Value, key: &str) -> &'a [Value] {
    let list = case[key].as_array().unwrap_or_else(|| panic!("{key} in {case}"));
    assert!(!list.is_empty(), "{key} in {case}");
    list
}

/// A list of any numbers that is not empty.
pub fn reals(case: &Value, key: &str) -> Vec<f64> {
    list(case, key).iter().map(|value| value.as_f64().expect("a number")).collect()
}
