//! Where a user's programs keep what can be had again.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// `spark-backbone` in the user's cache folder, which is `$XDG_CACHE_HOME` or `~/.cache`; none if
/// neither is known.
pub fn user_cache() -> Option<PathBuf> {
    user_cache_in(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))
}

/// The same with these values of the two variables.
pub(crate) fn user_cache_in(
    xdg_cache_home: Option<OsString>,
    home: Option<OsString>,
) -> Option<PathBuf> {
    // Relative ones are to be ignored, says the XDG base directory specification.
    let absolute = |path: Option<OsString>| path.map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = absolute(xdg_cache_home).or_else(|| absolute(home).map(|h| h.join(".cache")))?;
    Some(cache.join("spark-backbone"))
}
