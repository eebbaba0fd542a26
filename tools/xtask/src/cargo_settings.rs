//! `.cargo/torch.toml`, which tells plain cargo what to build against and where: cargo reads it by
//! `.cargo/config.toml`'s `include`.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use spark_build::version;
use toml::{Table, Value};

use crate::files;

/// The file in the checkout.
pub const SETTINGS: &str = ".cargo/torch.toml";

/// The header that lets torch-sys compile against releases it was not generated from.
const COMPAT: &str = "tools/build/cpp/torch_sys_compat.hpp";

/// The folder in cargo's target folder that the artefacts of `release` lie in, so that going from
/// one release to another and back builds nothing again; none for the default one's.
pub fn subfolder(release: &str) -> Option<String> {
    (release != version::DEFAULT).then(|| format!("torch-{release}"))
}

/// What build scripts are told for the libtorch in `folder`: the same, whether by plain cargo or by
/// `xtask`, so that neither builds again what the other has built.
pub fn variables(root: &Path, folder: &Path) -> Vec<(&'static str, OsString)> {
    let mut flags = OsString::from("-std=c++20 -include ");
    let header = root.join(COMPAT);
    // The flags are split at white space, unless they are quoted and this is said of them.
    let plain =
        !header.to_string_lossy().contains(|c: char| c.is_whitespace() || "'\"\\".contains(c));
    if plain {
        flags.push(&header);
        return vec![("LIBTORCH", folder.into()), ("HOST_CXXFLAGS", flags)];
    }
    flags.push("'");
    flags.push(header.to_string_lossy().replace('\'', "'\\''"));
    flags.push("'");
    vec![
        ("LIBTORCH", folder.into()),
        ("HOST_CXXFLAGS", flags),
        ("CC_SHELL_ESCAPED_FLAGS", "1".into()),
    ]
}

/// The libtorch that an earlier set-up wrote down.
pub fn libtorch(root: &Path) -> Result<Option<PathBuf>> {
    let file = root.join(SETTINGS);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let table: Table =
        text.parse().with_context(|| format!("{} is damaged: remove it", file.display()))?;
    let value = |entry: &Value| entry.get("value")?.as_str().map(PathBuf::from);
    Ok(table.get("env").and_then(|env| env.get("LIBTORCH")).and_then(value))
}

/// Has plain cargo build against the libtorch `release` in `folder`, into `target`.
pub fn write(root: &Path, folder: &Path, release: &str, target: &Path) -> Result<()> {
    let text = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.with_context(|| format!("{} is no UTF-8, which cargo's settings are", path.display()))
    };
    let mut settings = Table::new();
    if subfolder(release).is_some() {
        let build = Table::from_iter([("target-dir".to_owned(), Value::from(text(target)?))]);
        settings.insert("build".into(), build.into());
    }
    let mut env = Table::new();
    for (name, value) in variables(root, folder) {
        let entry = Table::from_iter([("value".to_owned(), Value::from(text(Path::new(&value))?))]);
        env.insert(name.into(), entry.into());
    }
    settings.insert("env".into(), env.into());
    let file = root.join(SETTINGS);
    let text = format!("# Written by `cargo xtask setup`; remove it to choose anew.\n{settings}");
    if fs::read_to_string(&file).is_ok_and(|there| there == text) {
        return Ok(());
    }
    files::replace(&file, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_other_releases_build_elsewhere() {
        // The checkout's path has a space.
        let root = tempfile::Builder::new().prefix("xtask settings").tempdir().unwrap();
        let root = root.path();
        fs::create_dir(root.join(".cargo")).unwrap();
        assert_eq!(libtorch(root).unwrap(), None);
        let read = || fs::read_to_string(root.join(SETTINGS)).unwrap();
        for (release, elsewhere) in [("2.15.0", true), (version::DEFAULT, false)] {
            write(root, Path::new("/opt/a \"torch\""), release, Path::new("/t/x")).unwrap();
            assert_eq!(libtorch(root).unwrap(), Some("/opt/a \"torch\"".into()));
            assert_eq!(read().contains("target-dir = \"/t/x\""), elsewhere, "{}", read());
        }
        assert!(read().contains("-include '/") && read().contains("CC_SHELL_ESCAPED_FLAGS"));
        fs::write(root.join(SETTINGS), "[env").unwrap();
        let error = libtorch(root).unwrap_err().to_string();
        assert!(error.contains("is damaged: remove it"), "{error}");
    }

    #[test]
    fn the_default_release_keeps_cargos_own_folder() {
        assert_eq!(subfolder(version::DEFAULT), None);
        assert_eq!(subfolder("2.8.0").as_deref(), Some("torch-2.8.0"));
    }
}
