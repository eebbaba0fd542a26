//! Curves out of a run's `metrics.jsonl`.

use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// The points (`x`, `y`) of all records in `metrics` that have both numbers, in
/// their order. Lines that are no JSON, as a kill leaves one, are left out.
///
/// # Errors
/// [`Error::Input`].
pub fn series(metrics: &Path, x: &str, y: &str) -> Result<Vec<(f64, f64)>> {
    let text = std::fs::read_to_string(metrics).map_err(|e| Error::io(metrics, e))?;
    let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(records.filter_map(|record| Some((record[x].as_f64()?, record[y].as_f64()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_without_the_numbers_are_left_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = "{\"step\":1,\"loss\":0.5}\n{\"step\":2}\n{\"step\":3,\"loss\":0.25}\n{\"st";
        std::fs::write(file.path(), lines).unwrap();
        assert_eq!(series(file.path(), "step", "loss").unwrap(), [(1.0, 0.5), (3.0, 0.25)]);
        assert!(series(Path::new("/none"), "step", "loss").is_err());
    }
}
