//! How much a cache holds, and what makes way for more.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use super::block::{ENDING, UNFINISHED};

/// Blocks used within this time stay: a data set larger than the cache would push its own out
/// before they are used again.
const KEPT: Duration = Duration::from_secs(3600);
/// How long no room is looked for after none was found.
const PAUSE: Duration = Duration::from_secs(30);
/// The file that holds the number of bytes, which its lock guards.
const COUNT: &str = "bytes";

/// The room of a cache, counted over all processes that use it.
pub(super) struct Room {
    folder: PathBuf,
    size: u64,
    /// When this process began to use it.
    begun: SystemTime,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Until when there is none.
    full_until: Option<Instant>,
    /// Whether blocks can't be written.
    broken: bool,
}

impl Room {
    pub(super) fn open(folder: &Path, size: u64) -> io::Result<Self> {
        let begun = SystemTime::now();
        let room = Room { folder: folder.to_owned(), size, begun, state: Mutex::default() };
        // Also finds out whether the folder can be written.
        let mut count = room.lock()?;
        let found = room.found()?;
        write_count(&mut count, found.iter().map(|file| file.length).sum())?;
        Ok(room)
    }

    /// Whether there was no room a moment ago.
    pub(super) fn is_full(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.broken || state.full_until.is_some_and(|until| Instant::now() < until)
    }

    /// That nothing more can be written.
    pub(super) fn give_up(&self, folder: &Path, error: &io::Error) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut state.broken, true) {
            tracing::warn!(
                "{}: {error}; nothing more is kept there, and data is read from its store",
                folder.display()
            );
        }
    }

    /// Takes room for `length` bytes; false if there is none. Blocks that were not used for an hour
    /// and before this process began make way, those first that were not used for longest.
    pub(super) fn take(&self, length: u64) -> io::Result<bool> {
        let mut count = self.lock()?;
        let mut text = String::new();
        count.read_to_string(&mut text)?;
        if let Ok(used) = text.trim().parse::<u64>()
            && used + length <= self.size
        {
            write_count(&mut count, used + length)?;
            return Ok(true);
        }
        let mut files = self.found()?;
        let mut used: u64 = files.iter().map(|file| file.length).sum();
        let young = self.begun.min(SystemTime::now() - KEPT);
        files.sort_by_key(|file| file.used);
        if used + length > self.size {
            // A share more, so that room is not looked for block by block.
            let goal = self.size - self.size / 20;
            for file in files.iter().filter(|file| file.used < young) {
                if used + length <= goal {
                    break;
                }
                match fs::remove_file(&file.path) {
                    Ok(()) => used -= file.length,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => used -= file.length,
                    Err(error) => return Err(error),
                }
            }
        }
        let fits = used + length <= self.size;
        write_count(&mut count, if fits { used + length } else { used })?;
        if !fits {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.full_until = Some(Instant::now() + PAUSE);
        }
        Ok(fits)
    }

    /// The file of the count, locked for as long as it is open.
    fn lock(&self) -> io::Result<File> {
        let path = self.folder.join(COUNT);
        let file =
            File::options().create(true).read(true).write(true).truncate(false).open(path)?;
        file.lock()?;
        Ok(file)
    }

    /// What blocks there are, finished or not; what a killed process left is removed.
    fn found(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        let now = SystemTime::now();
        for folder in fs::read_dir(&self.folder)? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let path = file?.path();
                let ending = path.extension().and_then(|ending| ending.to_str());
                // Another process may remove it meanwhile, and what is called otherwise is not ours.
                let (Some(ending), Ok(metadata)) = (ending, fs::metadata(&path)) else { continue };
                let used = metadata.modified()?;
                let is_old = now.duration_since(used).is_ok_and(|age| age > KEPT);
                match ending {
                    UNFINISHED if is_old => {
                        let _ = fs::remove_file(&path);
                    }
                    ENDING | UNFINISHED => {
                        found.push(Found { path, length: metadata.len(), used });
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }
}

/// A block's file.
struct Found {
    path: PathBuf,
    length: u64,
    /// When it was used last.
    used: SystemTime,
}

fn write_count(file: &mut File, bytes: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.set_len(0)?;
    file.write_all(format!("{bytes}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block's file that was used `age` ago.
    fn block(folder: &Path, name: &str, length: u64, age: Duration) -> PathBuf {
        let path = folder.join("00").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create(&path).unwrap();
        file.set_len(length).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        path
    }

    #[test]
    fn the_longest_unused_make_way_and_the_used_stay() {
        let folder = tempfile::tempdir().unwrap();
        let hours = |n: u64| Duration::from_secs(3600 * n);
        let oldest = block(folder.path(), "a.block", 300, hours(9));
        let old = block(folder.path(), "b.block", 300, hours(5));
        let fresh = block(folder.path(), "c.block", 300, Duration::from_secs(60));
        let left = block(folder.path(), "d.1-2.part", 300, hours(2));
        let foreign = block(folder.path(), "mine.jpg", 5000, hours(99));
        let room = Room::open(folder.path(), 1000).unwrap();
        assert!(!left.exists(), "what a killed process left is removed");
        assert!(room.take(100).unwrap());
        assert!(room.take(200).unwrap());
        assert!(!oldest.exists() && old.exists() && fresh.exists() && foreign.exists());
        // The two that were taken were not written, and the count is of what is there.
        assert!(room.take(600).unwrap());
        assert!(!old.exists() && fresh.exists());
        assert!(!room.take(800).unwrap() && room.is_full());
        assert!(fresh.exists() && foreign.exists());
    }

    #[test]
    fn processes_count_together() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) =
            (Room::open(folder.path(), 1000).unwrap(), Room::open(folder.path(), 1000));
        let other = other.unwrap();
        assert!(one.take(400).unwrap());
        block(folder.path(), "a.block", 400, Duration::ZERO);
        assert!(other.take(400).unwrap());
        block(folder.path(), "b.block", 400, Duration::ZERO);
        assert!(!one.take(400).unwrap() && !other.take(400).unwrap());
    }
}
