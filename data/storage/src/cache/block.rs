//! One block in a file.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::Object;

/// Start of every file; its number changes with the format.
const MAGIC: &[u8] = b"spark-backbone block 1\n";
/// Bytes that have a checksum together: what is read of a block is checked, and little more is
/// read for that.
const CHUNK: usize = 1 << 16;
/// How old the note of a block's last use may be.
const NOTE_EVERY: Duration = Duration::from_secs(600);
/// The ending of a block's name.
pub(super) const ENDING: &str = "block";
/// The ending of the name of one that is being written.
pub(super) const UNFINISHED: &str = "part";

/// What a block is of.
pub(super) struct Key {
    text: String,
    hash: u64,
    number: u64,
}

impl Key {
    pub(super) fn new(object: &Object, number: u64) -> Self {
        let of = format!("{}\n{}\n{}", object.location, object.version(), object.size);
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        Key { text: format!("{of}\n{number}"), hash: hasher.finish(), number }
    }

    /// Where it lies in the cache's folder.
    pub(super) fn path(&self) -> PathBuf {
        let hash = format!("{:016x}", self.hash);
        Path::new(&hash[..2]).join(format!("{hash}-{:06x}.{ENDING}", self.number))
    }

    /// What stands before the content: the mark, what it is of, and the checksums.
    fn head(&self, content: &[u8]) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        head.extend((self.text.len() as u32).to_le_bytes());
        head.extend(self.text.as_bytes());
        head.extend((content.len() as u32).to_le_bytes());
        content.chunks(CHUNK).for_each(|chunk| head.extend(crc32c::crc32c(chunk).to_le_bytes()));
        head
    }

    /// Bytes of the file of a block of `length` bytes.
    pub(super) fn length(&self, length: usize) -> u64 {
        let sums = 4 * length.div_ceil(CHUNK);
        (MAGIC.len() + 4 + self.text.len() + 4 + sums + length) as u64
    }

    /// Writes the block to `path`, whole or not at all.
    pub(super) fn store(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unfinished =
            path.with_extension(format!("{}-{number}.{UNFINISHED}", std::process::id()));
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(&self.head(content))?;
            file.write_all(content)
        });
        let written = written.and_then(|()| fs::rename(&unfinished, path));
        if written.is_err() {
            // The first error is the one to tell of.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Bytes `range` of the block at `path`; none if that isn't there, or damaged, which it is not
    /// for long.
    pub(super) fn load(&self, path: &Path, range: Range<usize>) -> Option<Vec<u8>> {
        let file = File::open(path).ok()?;
        let bytes = self.checked(&file, range);
        if bytes.is_none() {
            tracing::debug!("{}: damaged, or of something else; removed", path.display());
            let _ = fs::remove_file(path);
            return None;
        }
        note_use(&file);
        bytes
    }

    fn checked(&self, file: &File, range: Range<usize>) -> Option<Vec<u8>> {
        let head = self.head(&[]);
        let mut found = vec![0; head.len()];
        file.read_exact_at(&mut found, 0).ok()?;
        let (mark, length) = found.split_last_chunk::<4>()?;
        if mark != &head[..head.len() - 4] {
            return None;
        }
        let length = u32::from_le_bytes(*length) as usize;
        if range.end > length || file.metadata().ok()?.len() != self.length(length) {
            return None;
        }
        let (first, last) = (range.start / CHUNK, range.end.div_ceil(CHUNK));
        let mut sums = vec![0; 4 * (last - first)];
        file.read_exact_at(&mut sums, (head.len() + 4 * first) as u64).ok()?;
        let begin = first * CHUNK;
        let mut bytes = vec![0; length.min(last * CHUNK) - begin];
        let content = head.len() + 4 * length.div_ceil(CHUNK);
        file.read_exact_at(&mut bytes, (content + begin) as u64).ok()?;
        let sums = sums.as_chunks::<4>().0.iter().map(|sum| u32::from_le_bytes(*sum));
        if !bytes.chunks(CHUNK).map(crc32c::crc32c).eq(sums) {
            return None;
        }
        bytes.truncate(range.end - begin);
        bytes.drain(..range.start - begin);
        Some(bytes)
    }
}

/// Notes that the block was used, which its age is counted from. A folder that can't be written is
/// one that nothing is removed from either.
fn note_use(file: &File) {
    let now = SystemTime::now();
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|modified| now.duration_since(modified).ok());
    if age.is_some_and(|age| age > NOTE_EVERY) {
        let _ = file.set_modified(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Location;

    fn key(etag: &str) -> Key {
        let location = Location::parse("s3://b/a.tar").unwrap();
        let etag = Some(etag.to_owned());
        Key::new(&Object { location, size: 1 << 30, etag, modified: SystemTime::UNIX_EPOCH }, 3)
    }

    #[test]
    fn any_part_comes_back_and_nothing_of_another_version() {
        let folder = tempfile::tempdir().unwrap();
        let (key, other) = (key("one"), key("two"));
        assert_ne!(key.path(), other.path());
        let path = folder.path().join(key.path());
        let content: Vec<u8> = (0..200_000u32).map(|n| (n / 7 % 251) as u8).collect();
        key.store(&path, &content).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), key.length(content.len()));
        for range in [0..200_000, 0..1, 65_535..65_537, 199_999..200_000, 70_000..70_000] {
            assert_eq!(key.load(&path, range.clone()).unwrap(), content[range]);
        }
        // The same file under another block's name, as after a collision of names.
        let elsewhere = folder.path().join("x");
        fs::copy(&path, &elsewhere).unwrap();
        assert!(other.load(&elsewhere, 0..1).is_none() && !elsewhere.exists());
        assert!(key.load(&path, 0..200_001).is_none());
    }

    #[test]
    fn damage_is_found_where_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let key = key("one");
        let path = folder.path().join("block");
        let content = vec![7; 150_000];
        let head = key.head(&content).len();
        let damaged = |at: usize, range: Range<usize>| {
            key.store(&path, &content).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            key.load(&path, range).is_none()
        };
        assert!(damaged(head + 140_000, 139_000..139_001));
        assert!(!damaged(head + 140_000, 0..1000));
        assert!(damaged(3, 0..1) && damaged(head - 1, 149_999..150_000));
        // One that was cut, as by a power cut.
        key.store(&path, &content).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(100_000).unwrap();
        assert!(key.load(&path, 0..1).is_none() && !path.exists());
    }
}
