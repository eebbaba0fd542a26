//! Files that are either complete or absent: written beside the target, forced
//! to the disk, then renamed over it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::{Error, Result};

/// Writes `path` with what `fill` puts out. When anything fails, whatever was
/// at `path` before is still there, untouched.
///
/// # Errors
/// [`Error::Io`] naming `path`, or the error of `fill`.
pub(crate) fn write(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&File>) -> Result<()>,
) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = temporary_in(folder).map_err(|source| Error::io(path, source))?;
    let mut writer = BufWriter::with_capacity(1 << 20, temporary.as_file());
    fill(&mut writer)?;
    writer.flush().map_err(|source| Error::io(path, source))?;
    drop(writer);
    temporary.as_file().sync_all().map_err(|source| Error::io(path, source))?;
    temporary.persist(path).map_err(|failed| Error::io(path, failed.error))?;
    sync_folder(folder).map_err(|source| Error::io(path, source))
}

/// A temporary file with the permissions an ordinary new file would get:
/// `tempfile` makes private ones, but weights are there to be shared.
fn temporary_in(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".weights-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// Makes the rename itself survive a power cut. Only Unix lets a folder be
/// opened for that.
fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.bin");
        std::fs::write(&path, b"old").unwrap();
        let outcome = write(&path, |out| {
            out.write_all(b"half of the n").unwrap();
            Err(Error::Weights("stop".into()))
        });
        assert!(outcome.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write(Path::new("/nowhere/at/all.bin"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all.bin"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_the_umask_lets_them() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write(&ours, |out| out.write_all(b"x").map_err(|e| Error::io("ours", e))).unwrap();
        std::fs::write(&plain, b"x").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
