//! Files of the data that cannot be used.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Result;
use data::names::one_line;
use data::write_file;

/// Which data set a file is of.
#[derive(Clone, Copy)]
pub(super) enum Split {
    Training,
    Validation,
}

/// Unusable files with their reasons, and the list of them in the run's folder, `corrupt.txt`.
pub(super) struct UnusableFiles {
    list: PathBuf,
    known: [BTreeMap<String, String>; 2],
}

impl UnusableFiles {
    /// None yet; `list` is written with the first.
    pub fn new(list: PathBuf) -> Self {
        Self { list, known: Default::default() }
    }

    /// Takes all those of a data set that are known by now, writes the list if it has grown, and
    /// gives those that are new.
    pub fn update(
        &mut self,
        split: Split,
        report: BTreeMap<String, String>,
    ) -> Result<Vec<(String, String)>> {
        let known = &mut self.known[split as usize];
        if report.len() <= known.len() {
            return Ok(Vec::new());
        }
        let mut new: Vec<(String, String)> =
            report.iter().map(|(name, why)| (name.clone(), why.clone())).collect();
        new.retain(|(name, _)| !known.contains_key(name));
        *known = report;
        let all = self.known.iter().flatten();
        let line = |(name, why): (&String, &String)| format!("{}\t{why}\n", one_line(name));
        let lines: String = all.map(line).collect();
        write_file(&self.list, lines.as_bytes())?;
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_files_are_given_once_and_all_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = UnusableFiles::new(folder.path().join("corrupt.txt"));
        let report = |names: &[&str]| -> BTreeMap<String, String> {
            names.iter().map(|name| (name.to_string(), "cut off".to_owned())).collect()
        };
        let mut update = |split, names: &[&str]| -> Vec<String> {
            let new = files.update(split, report(names)).unwrap();
            new.into_iter().map(|(name, _)| name).collect()
        };
        assert!(update(Split::Training, &[]).is_empty());
        assert!(!folder.path().join("corrupt.txt").exists());
        assert_eq!(update(Split::Training, &["b"]), ["b"]);
        assert_eq!(update(Split::Validation, &["v\n\tw"]), ["v\n\tw"]);
        assert_eq!(update(Split::Training, &["a", "b"]), ["a"]);
        assert!(update(Split::Training, &["a", "b"]).is_empty());
        let list = std::fs::read_to_string(folder.path().join("corrupt.txt")).unwrap();
        assert_eq!(list, "a\tcut off\nb\tcut off\nv\\n\\tw\tcut off\n");
    }
}
