//! The bundle's archive.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::files;

/// Writes `files`, each a place in the archive and the file that goes there, below the folder
/// `root` into a gzipped tar archive `output`; its size. It is there whole or not at all.
///
/// # Errors
/// A file cannot be read or the archive not be written, or it would be larger than `most` bytes:
/// the message says what takes the room.
pub fn write(output: &Path, root: &str, files: &[(PathBuf, PathBuf)], most: u64) -> Result<u64> {
    let part = output.with_added_extension(format!("part{}", std::process::id()));
    let written = pack(&part, root, files);
    let done = written.and_then(|sizes| {
        let bytes =
            fs::metadata(&part).with_context(|| format!("cannot read {}", part.display()))?.len();
        if bytes > most {
            bail!("{}", too_large(bytes, most, sizes));
        }
        files::rename(&part, output)?;
        Ok(bytes)
    });
    if done.is_err() {
        // What is left is no archive.
        let _ = fs::remove_file(&part);
    }
    done
}

/// Packs the archive; how many of its bytes each file takes.
fn pack(part: &Path, root: &str, files: &[(PathBuf, PathBuf)]) -> Result<Vec<(PathBuf, u64)>> {
    let file = File::create(part).with_context(|| format!("cannot write {}", part.display()))?;
    let bytes = Rc::new(Cell::new(0));
    let counted = Counted { inner: BufWriter::new(file), bytes: Rc::clone(&bytes) };
    let mut archive = tar::Builder::new(GzEncoder::new(counted, Compression::best()));
    let mut sizes = Vec::new();
    for (place, source) in files {
        let before = bytes.get();
        archive
            .append_path_with_name(source, Path::new(root).join(place))
            .with_context(|| format!("cannot pack {}", source.display()))?;
        sizes.push((place.clone(), bytes.get() - before));
    }
    let finish = || -> io::Result<()> {
        let mut counted = archive.into_inner()?.finish()?;
        counted.flush()?;
        counted.inner.get_ref().sync_all()
    };
    finish().with_context(|| format!("cannot write {}", part.display()))?;
    Ok(sizes)
}

/// Why an archive is refused, with the sum of what each of its folders takes.
fn too_large(bytes: u64, most: u64, sizes: Vec<(PathBuf, u64)>) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut folders: BTreeMap<String, u64> = BTreeMap::new();
    for (place, bytes) in sizes {
        let first = place.components().next().map(Component::as_os_str).unwrap_or_default();
        *folders.entry(first.to_string_lossy().into_owned()).or_default() += bytes;
    }
    let mut folders: Vec<_> = folders.into_iter().collect();
    folders.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let mut text = format!(
        "the bundle would be {:.1} MiB, but it must be at most {:.0}: name fewer releases with \
         --torch. It holds",
        mib(bytes),
        mib(most)
    );
    for (index, (folder, bytes)) in folders.into_iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(text, "{comma} {folder} {:.1} MiB", mib(bytes));
    }
    text
}

/// Counts what goes through.
struct Counted<W> {
    inner: W,
    bytes: Rc<Cell<u64>>,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.bytes.set(self.bytes.get() + written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
