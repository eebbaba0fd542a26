//! Which files could not be used, and when there are too many of them.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, Result};

/// The files that a loader skipped, shared by its threads.
#[derive(Debug)]
pub struct CorruptFiles {
    total: usize,
    allowed: usize,
    /// Name and reason by the file's index in the data set.
    files: Mutex<HashMap<usize, (String, String)>>,
}

impl CorruptFiles {
    /// For a data set of `total` images, of which a share of `fraction` may be corrupt: one at
    /// least if any, and never all.
    pub(super) fn new(total: usize, fraction: f64) -> Self {
        let allowed = match (fraction * total as f64) as usize {
            0 if fraction > 0.0 => 1,
            share => share,
        };
        let allowed = allowed.min(total.saturating_sub(1));
        CorruptFiles { total, allowed, files: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, (String, String)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether image `index` is known to be corrupt.
    ///
    /// # Errors
    /// [`Error::Data`] once there are too many: a thread that looked for another image would find
    /// none, for ever, where all are corrupt.
    pub(super) fn contains(&self, index: usize) -> Result<bool> {
        let files = self.lock();
        if files.len() > self.allowed {
            return Err(self.too_many(&sorted(&files)));
        }
        Ok(files.contains_key(&index))
    }

    /// Notes that image `index` is corrupt.
    ///
    /// # Errors
    /// [`Error::Data`] when that makes too many; it lists some.
    pub(super) fn add(&self, index: usize, name: String, reason: String) -> Result<()> {
        let mut files = self.lock();
        files.insert(index, (name, reason));
        if files.len() <= self.allowed {
            return Ok(());
        }
        Err(self.too_many(&sorted(&files)))
    }

    fn too_many(&self, files: &BTreeMap<String, String>) -> Error {
        const LISTED: usize = 5;
        let (found, allowed) = (files.len(), self.allowed);
        let listed: String = files
            .iter()
            .take(LISTED)
            .map(|(name, reason)| format!("\n  {name}: {reason}"))
            .collect();
        let more = if found > LISTED { "\n  …" } else { "" };
        // Of all files at least one must be usable, whatever is allowed.
        let way = match found < self.total {
            true => ", or allow more with --max-corrupt (a fraction of all files)",
            false => "",
        };
        Error::Data(format!(
            "{found} of {} files can't be used, and at most {allowed} may be skipped; repair or \
             remove them{way}:{listed}{more}",
            self.total,
        ))
    }

    /// That files that several loaders of the data set skipped are no more than one may skip.
    ///
    /// # Errors
    /// [`Error::Data`] when they are; it lists some.
    pub fn check(&self, skipped: &BTreeMap<String, String>) -> Result<()> {
        if skipped.len() <= self.allowed {
            return Ok(());
        }
        Err(self.too_many(skipped))
    }

    /// Number of distinct corrupt files met so far.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no corrupt file was met so far.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Name and reason of each, sorted by name.
    pub fn report(&self) -> Vec<(String, String)> {
        sorted(&self.lock()).into_iter().collect()
    }
}

/// What `make` makes of a file, or in words why it can't. Decoders meet arbitrary bytes, so a panic
/// in one is the file's fault like any other.
///
/// # Errors
/// [`Error::Storage`] where a store fails: that is no fault of the file, which another run would
/// have.
pub(super) fn outcome<T>(
    make: impl FnOnce() -> Result<T>,
) -> Result<std::result::Result<T, String>> {
    Ok(match catch_unwind(AssertUnwindSafe(make)) {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(Error::Storage(error))) if !error.is_not_found() => return Err(error.into()),
        Ok(Err(Error::Image { problem, .. })) => Err(problem),
        Ok(Err(Error::Io { source, .. })) => Err(source.to_string()),
        Ok(Err(other)) => Err(other.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(format!("reading it panicked: {text}"))
        }
    })
}

fn sorted(files: &HashMap<usize, (String, String)>) -> BTreeMap<String, String> {
    files.values().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_a_share_but_at_least_one_and_never_all() {
        let allowed = |total, fraction| CorruptFiles::new(total, fraction).allowed;
        assert_eq!(allowed(1000, 0.01), 10);
        assert_eq!(allowed(10, 0.01), 1);
        assert_eq!(allowed(10, 0.0), 0);
        assert_eq!(allowed(10, 1.0), 9);
        assert_eq!(allowed(1, 0.5), 0);
    }

    #[test]
    fn counts_a_file_once_and_lists_the_first_when_there_are_too_many() {
        let files = CorruptFiles::new(10, 0.2);
        files.add(4, "d.jpg".into(), "bad".into()).unwrap();
        files.add(4, "d.jpg".into(), "bad".into()).unwrap();
        files.add(1, "a.jpg".into(), "worse".into()).unwrap();
        assert_eq!(files.len(), 2);
        let message = files.add(2, "c.jpg".into(), "worst".into()).unwrap_err().to_string();
        let listed = "\n  a.jpg: worse\n  c.jpg: worst\n  d.jpg: bad";
        assert!(
            message.starts_with("3 of 10 files") && message.contains("--max-corrupt"),
            "{message}"
        );
        assert!(message.ends_with(listed), "{message}");
        // Whoever looks for another image from now on is told the same.
        assert_eq!(files.contains(7).unwrap_err().to_string(), message);
        let only = CorruptFiles::new(1, 1.0);
        let message = only.add(0, "a.jpg".into(), "bad".into()).unwrap_err().to_string();
        assert!(!message.contains("--max-corrupt"), "nothing is left to skip to: {message}");
    }
}
