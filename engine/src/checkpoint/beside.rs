//! The checkpoints beside one that is gone or damaged, and how to go on from them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::CheckpointFile;

/// What every program's state has.
#[derive(Deserialize)]
struct Steps {
    step: u64,
}

/// The number of steps after which the checkpoint at `path` was saved; none if it is no whole one.
pub fn step_of(path: &Path) -> Option<u64> {
    let Steps { step } = CheckpointFile::open(path).ok()?.state().ok()?;
    Some(step)
}

/// The whole checkpoints in the folder of `lost`, less `lost` itself, with the steps they were
/// saved after; the newest first.
fn whole(lost: &Path) -> Vec<(u64, PathBuf)> {
    let folder = lost.parent().unwrap_or(Path::new(""));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path()).filter(|path| path != lost);
    let is_named = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "safetensors");
    let mut found: Vec<(u64, PathBuf)> =
        paths.filter(is_named).filter_map(|path| Some((step_of(&path)?, path))).collect();
    found.sort_by(|(step, path), (other_step, other)| other_step.cmp(step).then(path.cmp(other)));
    found
}

/// Which whole checkpoints lie beside `lost`, the last checkpoint of a run, and how to go on from
/// them; none if there are none.
pub fn beside(lost: &Path) -> Option<String> {
    let found = whole(lost);
    let (_, newest) = found.first()?;
    let names: Vec<String> = found
        .iter()
        .map(|(step, path)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            format!("{name} (step {step})")
        })
        .collect();
    let (newest, lost) = (pasted(newest), pasted(lost));
    Some(format!(
        "beside it are {}: go on from one of them in a new folder with `train --resume {newest} \
         --output NEW_FOLDER`, or in the same one after `cp {newest} {lost}` with --resume",
        names.join(", "),
    ))
}

/// A path as a shell takes it.
fn pasted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    match text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tch::Tensor;

    use super::*;
    use crate::checkpoint::write_checkpoint;

    #[test]
    fn whole_checkpoints_are_named_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let last = at("last.safetensors");
        assert_eq!(beside(&last), None);
        let model = BTreeMap::from([("a".to_owned(), Tensor::from(1))]);
        for (name, step) in [("best", 3), ("epoch-0004", 40), ("best-ema", 3), ("last", 50)] {
            let path = at(&format!("{name}.safetensors"));
            let state = serde_json::json!({ "step": step });
            write_checkpoint(&path, &[("model", &model)], &state).unwrap();
        }
        fs::write(at("epoch-0005.safetensors"), b"cut off").unwrap();
        fs::write(at(".last.safetensors.7.tmp"), b"cut off").unwrap();
        let text = beside(&last).unwrap();
        let expected = "epoch-0004.safetensors (step 40), best-ema.safetensors (step 3), \
                        best.safetensors (step 3): go on";
        assert!(text.contains(expected), "{text}");
        let command = format!("cp {} {}`", at("epoch-0004.safetensors").display(), last.display());
        assert!(text.contains(&command), "{text}");
        assert_eq!(pasted(Path::new("my runs/a")), "'my runs/a'");
    }
}
