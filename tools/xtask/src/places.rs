//! Where things lie: the checkout, cargo's target folder, the cache.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use spark_build::version;

use crate::{process, python};

/// The repository's root.
///
/// # Errors
/// When the folder has been moved since `xtask` was built and `xtask` is not
/// started through cargo.
pub fn root() -> Result<PathBuf> {
    // What cargo says now comes before what it said at build time: checkouts
    // get moved.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    // tools/xtask
    let root = package.ancestors().nth(2).context("xtask lies in no workspace")?;
    root.canonicalize().with_context(|| format!("the checkout {} is gone", root.display()))
}

/// The folder cargo builds into against the default release, whatever chose it.
///
/// # Errors
/// When the path of this program cannot be found out.
pub fn target() -> Result<PathBuf> {
    let xtask = env::current_exe().context("where does xtask lie?")?;
    target_of(&xtask).with_context(|| format!("{} lies in no target folder", xtask.display()))
}

/// `xtask` is `<target>/<profile>/xtask`, or lies in the folder of another release in there.
fn target_of(xtask: &Path) -> Option<PathBuf> {
    let target = xtask.ancestors().nth(2)?;
    let name = target.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let of_release = name.strip_prefix(python::ENVIRONMENT).is_some_and(version::is_taken);
    Some(if of_release { target.parent()? } else { target }.to_owned())
}

/// The folder that all checkouts of a user share.
///
/// # Errors
/// When neither XDG_CACHE_HOME nor HOME names a folder.
pub fn cache() -> Result<PathBuf> {
    cache_in(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))
}

fn cache_in(cache_home: Option<OsString>, home: Option<OsString>) -> Result<PathBuf> {
    // The XDG specification tells to ignore relative paths.
    let absolute =
        |variable: Option<OsString>| variable.map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(cache_home)
        .or_else(|| absolute(home).map(|home| home.join(".cache")))
        .context("no cache folder: neither XDG_CACHE_HOME nor HOME is set to an absolute path")?;
    Ok(base.join("spark-backbone"))
}

/// Bytes free on the disk that holds `path`, or would hold it once made.
///
/// # Errors
/// When `df` cannot say.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let existing =
        path.ancestors().find(|path| path.exists()).context("no parent folder exists")?;
    let table = process::read(Command::new("df").arg("-Pk").arg(existing))?;
    parse_df(&table).with_context(|| format!("`df` answered {table:?}"))
}

/// The `Available` column of the one data line of `df -Pk`, in bytes.
fn parse_df(table: &str) -> Option<u64> {
    let available = table.lines().nth(1)?.split_whitespace().nth(3)?;
    Some(available.parse::<u64>().ok()? * 1024)
}

/// Bytes that `folder` takes on disk.
///
/// # Errors
/// When `du` cannot say.
pub fn used_bytes(folder: &Path) -> Result<u64> {
    let answer = process::read(Command::new("du").arg("-sk").arg(folder))?;
    let kilobytes = answer.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    Ok(kilobytes.with_context(|| format!("`du` answered {answer:?}"))? * 1024)
}

/// Bytes as people read them: `5.1 GB`.
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_the_xdg_specification_puts_it() {
        let cache = |cache_home: Option<&str>, home: Option<&str>| {
            cache_in(cache_home.map(OsString::from), home.map(OsString::from))
        };
        let expect = |path: &str| Path::new(path).join("spark-backbone");
        assert_eq!(cache(Some("/big"), Some("/home/me")).unwrap(), expect("/big"));
        assert_eq!(cache(None, Some("/home/me")).unwrap(), expect("/home/me/.cache"));
        assert_eq!(cache(Some("here"), Some("/home/me")).unwrap(), expect("/home/me/.cache"));
        assert_eq!(cache(Some(""), Some("/home/me")).unwrap(), expect("/home/me/.cache"));
        assert!(cache(None, None).unwrap_err().to_string().contains("XDG_CACHE_HOME"));
    }

    #[test]
    fn the_folders_of_releases_lie_in_the_target_folder() {
        for place in ["/a/target/debug/xtask", "/a/target/torch-2.15.0/debug/xtask"] {
            assert_eq!(target_of(Path::new(place)).unwrap(), Path::new("/a/target"));
        }
        let own = Path::new("/a/torch-stuff/debug/xtask");
        assert_eq!(target_of(own).unwrap(), Path::new("/a/torch-stuff"));
    }

    #[test]
    fn reads_what_df_says_in_kilobytes() {
        let table = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n\
            /dev/vda         263000000 17000000  77000000      19% /\n";
        assert_eq!(parse_df(table), Some(77_000_000 * 1024));
        assert_eq!(parse_df("df: no such file\n"), None);
    }
}
