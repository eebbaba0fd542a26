//! What loading a file did, for people and for programs.

use std::fmt;

use words::counted;

use super::Naming;
use super::fit::Fit;

/// A tensor whose shape in the file is not the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The canonical name.
    pub name: String,
    /// The model's shape.
    pub expected: Vec<i64>,
    /// The file's shape.
    pub found: Vec<i64>,
}

/// What loading a file did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// The naming of the file.
    pub naming: Naming,
    /// What stands before each name in the file, such as `module.`.
    pub prefix: String,
    /// Canonical names of what was loaded.
    pub matched: Vec<String>,
    /// Canonical names that the file lacks; they keep their values.
    pub missing: Vec<String>,
    /// The file's names that the model has no use for.
    pub unused: Vec<String>,
    /// Tensors of another shape; they keep their values.
    pub mismatched: Vec<Mismatch>,
    /// Other prefixes under which the file has a set of weights that fits as
    /// well, such as a running average.
    pub alternatives: Vec<String>,
    /// What was converted on the way, and how, in sentences.
    pub converted: Vec<String>,
    /// The file's tensors that could not be read, and why, in phrases.
    pub left_out: Vec<String>,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loaded = counted(self.matched.len(), "tensor");
        write!(f, "{loaded} loaded ({} naming", self.naming)?;
        if !self.prefix.is_empty() {
            write!(f, ", prefix {:?}", self.prefix)?;
        }
        write!(f, ")")?;
        for other in &self.alternatives {
            write!(f, "\n  a set of weights under {other:?} fits as well and was left")?;
        }
        for sentence in &self.converted {
            write!(f, "\n  converted: {sentence}")?;
        }
        if !self.left_out.is_empty() {
            write!(f, "\n  {} left out: {}", self.left_out.len(), some_of(&self.left_out))?;
        }
        self.write_misfits(f)
    }
}

impl LoadReport {
    /// Of a file that fits so, of which this was `converted` and that `left_out`.
    pub(super) fn new(fit: Fit, converted: Vec<String>, left_out: Vec<String>) -> Self {
        Self {
            naming: fit.naming,
            prefix: fit.prefix,
            matched: fit.matched.into_keys().collect(),
            missing: fit.missing,
            unused: fit.unused,
            mismatched: fit.mismatched,
            alternatives: fit.alternatives,
            converted,
            left_out,
        }
    }

    /// What is not the same in file and model.
    pub(super) fn write_misfits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = mismatches(&self.mismatched);
        for (what, all) in
            [("missing", &self.missing), ("of another shape", &shapes), ("unused", &self.unused)]
        {
            if !all.is_empty() {
                write!(f, "\n  {} {what}: {}", all.len(), some_of(all))?;
            }
        }
        Ok(())
    }
}

/// Each mismatch as a phrase.
pub(crate) fn mismatches(all: &[Mismatch]) -> Vec<String> {
    all.iter()
        .map(|m| format!("{} is {:?}, the model has {:?}", m.name, m.found, m.expected))
        .collect()
}

/// Up to ten names, and how many more there are.
pub(crate) fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{shown} and {more} more"),
        _ => shown,
    }
}
