//! A large folder of small files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Inputs, whole};
use crate::duel::Settings;

/// Folders in it.
const FOLDERS: usize = 100;
/// The photographs that the files are links to, as many as keep below the
/// 65,000 links that ext4 allows of a file.
const PHOTOGRAPHS: Inputs = Inputs::Photographs { count: 64, size: (500, 375) };

/// Makes the folder at `path`: hard links, which take no room of their own.
pub(super) fn make(settings: &Settings, files: usize, path: &Path) -> Result<()> {
    PHOTOGRAPHS.make(settings)?;
    let source = PHOTOGRAPHS.path(&settings.folder);
    let mut photographs = fs::read_dir(&source)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>())
        .with_context(|| format!("cannot list {}", source.display()))?;
    photographs.sort();
    whole(path, |part| {
        for folder in 0..FOLDERS {
            fs::create_dir(part.join(format!("{folder:03}")))?;
        }
        for (number, photograph) in (0..files).zip(photographs.iter().cycle()) {
            let name = format!("{:03}/{number:06}.jpg", number % FOLDERS);
            fs::hard_link(photograph, part.join(name))?;
        }
        Ok(())
    })
}
