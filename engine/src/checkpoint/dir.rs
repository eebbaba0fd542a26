//! The folder of a run's checkpoints: `last`, `best`, `best-ema` and `epoch-NNNN`, and
//! the rule that says which of them may go.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tch::Tensor;

use super::file::write_tensors;
use crate::{Error, Result};
use data::{Temporary, is_temporary};

/// The checkpoint of a finished epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EpochCheckpoint {
    /// The number of finished epochs.
    pub epoch: u64,
    /// The file.
    pub path: PathBuf,
}

/// Under which names, besides `last`, a checkpoint is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckpointTags {
    /// As `epoch-NNNN`.
    pub epoch: Option<u64>,
    /// As `best`.
    pub best: bool,
    /// As `best-ema`: the one whose averaged weights are the best.
    pub best_ema: bool,
}

/// The number of finished epochs that a checkpoint's file is named after; none if it is not.
pub fn epoch_of(name: &str) -> Option<u64> {
    name.strip_prefix("epoch-")?.strip_suffix(".safetensors")?.parse().ok()
}

/// A folder of checkpoints that this process alone writes to.
#[derive(Debug)]
pub struct CheckpointDir {
    folder: PathBuf,
}

impl CheckpointDir {
    /// Opens or creates the folder and removes what a killed run left half
    /// written.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let dir = CheckpointDir { folder: folder.to_owned() };
        for name in dir.names()?.iter().filter(|name| is_temporary(name)) {
            let path = folder.join(name);
            fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
        }
        Ok(dir)
    }

    /// The newest checkpoint, if there is one.
    pub fn last(&self) -> Option<PathBuf> {
        Some(self.path("last")).filter(|path| path.exists())
    }

    /// The checkpoints of finished epochs, oldest first.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn epochs(&self) -> Result<Vec<EpochCheckpoint>> {
        let mut epochs: Vec<EpochCheckpoint> = self
            .names()?
            .iter()
            .filter_map(|name| {
                Some(EpochCheckpoint { epoch: epoch_of(name)?, path: self.folder.join(name) })
            })
            .collect();
        epochs.sort();
        Ok(epochs)
    }

    /// Writes a checkpoint once and gives it its names, `last` in the end:
    /// until then the previous one is the last. Sections and state are as in
    /// [`super::write_checkpoint`]. Returns the path of `last`.
    ///
    /// # Errors
    /// Those of [`super::write_checkpoint`].
    pub fn save(
        &self,
        names: CheckpointTags,
        sections: &[(&str, &BTreeMap<String, Tensor>)],
        state: &impl Serialize,
    ) -> Result<PathBuf> {
        let last = self.path("last");
        let temporary = Temporary::beside(&last);
        write_tensors(&temporary.0, sections, state)?;
        temporary.flush()?;
        if let Some(epoch) = names.epoch {
            temporary.also_as(&self.path(&format!("epoch-{epoch:04}")))?;
        }
        if names.best {
            temporary.also_as(&self.path("best"))?;
        }
        if names.best_ema {
            temporary.also_as(&self.path("best-ema"))?;
        }
        temporary.rename(&last)?;
        Ok(last)
    }

    /// Deletes the checkpoints of finished epochs but for the `keep` newest.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn prune(&self, keep: usize) -> Result<()> {
        let epochs = self.epochs()?;
        for saved in &epochs[..epochs.len().saturating_sub(keep)] {
            fs::remove_file(&saved.path).map_err(|e| Error::io(&saved.path, e))?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.safetensors"))
    }

    /// File names; one that is not Unicode is none of ours.
    fn names(&self) -> Result<Vec<String>> {
        let io = |e| Error::io(&self.folder, e);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(io)? {
            names.extend(entry.map_err(io)?.file_name().into_string().ok());
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::CheckpointFile;

    fn save(dir: &CheckpointDir, names: CheckpointTags, value: i64) {
        let model = BTreeMap::from([("a".to_owned(), Tensor::from(value))]);
        dir.save(names, &[("model", &model)], &value).unwrap();
    }

    fn value(path: &Path) -> i64 {
        let file = CheckpointFile::open(path).unwrap();
        assert_eq!(
            file.section("model").unwrap()["a"].int64_value(&[]),
            file.state::<i64>().unwrap()
        );
        file.state().unwrap()
    }

    #[test]
    fn names_point_at_what_was_saved_under_them() {
        let folder = tempfile::tempdir().unwrap();
        let dir = CheckpointDir::open(folder.path()).unwrap();
        assert_eq!(dir.last(), None);
        save(&dir, CheckpointTags { epoch: Some(1), best: true, best_ema: true }, 1);
        save(&dir, CheckpointTags { epoch: Some(2), ..CheckpointTags::default() }, 2);
        save(&dir, CheckpointTags::default(), 25);
        assert_eq!(value(&dir.last().unwrap()), 25);
        assert_eq!(value(&dir.path("best")), 1);
        assert_eq!(value(&dir.path("best-ema")), 1);
        let found: Vec<(u64, i64)> =
            dir.epochs().unwrap().iter().map(|s| (s.epoch, value(&s.path))).collect();
        assert_eq!(found, [(1, 1), (2, 2)]);
        assert!(folder.path().join("epoch-0001.safetensors").exists());

        dir.prune(5).unwrap();
        assert_eq!(dir.epochs().unwrap().len(), 2);
        dir.prune(1).unwrap();
        let kept: Vec<u64> = dir.epochs().unwrap().iter().map(|saved| saved.epoch).collect();
        assert_eq!(kept, [2]);
        assert_eq!(value(&dir.path("best")), 1, "best outlives its epoch");
    }

    #[cfg(unix)]
    #[test]
    fn a_checkpoint_is_on_disk_once() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let dir = CheckpointDir::open(folder.path()).unwrap();
        save(&dir, CheckpointTags { epoch: Some(1), best: true, best_ema: false }, 1);
        assert_eq!(fs::metadata(dir.last().unwrap()).unwrap().nlink(), 3);
    }

    #[test]
    fn a_run_killed_while_writing_leaves_the_checkpoint_before() {
        let folder = tempfile::tempdir().unwrap();
        let dir = CheckpointDir::open(folder.path()).unwrap();
        save(&dir, CheckpointTags::default(), 1);
        // What a kill leaves: a temporary file, whole or half, and no rename.
        let whole = fs::read(dir.last().unwrap()).unwrap();
        let half = folder.path().join(".last.safetensors.4711.tmp");
        fs::write(&half, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(value(&dir.last().unwrap()), 1);

        let dir = CheckpointDir::open(folder.path()).unwrap();
        assert!(!half.exists());
        assert_eq!(value(&dir.last().unwrap()), 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
