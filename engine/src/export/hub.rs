//! Folders that `hf upload` makes a repository of.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use data::write_file;

use super::card::Card;
use crate::outputs::make_folder;
use crate::picture::{loss_curve, png};
use crate::remote::Output;
use crate::run_dir::display_path;

/// The card of a folder for the hub.
const CARD: &str = "README.md";
pub(super) const CURVE: &str = "loss.png";
pub(super) const PICTURE: &str = "reconstruction.png";
pub(super) const FOUND: &str = "predictions.png";

/// Flags of `--format hub`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "With --format hub")]
pub struct HubFlags {
    /// Licence of the weights, as the hub calls it: mit, apache-2.0, cc-by-4.0, …; other if not
    /// given
    #[arg(long, alias = "licence", value_name = "ID")]
    license: Option<String>,
    /// Repository that the folder is for, as the card's examples name it
    #[arg(long, value_name = "OWNER/NAME")]
    repo: Option<String>,
}

impl HubFlags {
    /// Refuses flags where they are not used, or that the hub would refuse.
    ///
    /// # Errors
    /// Which flag, and why.
    pub fn check(&self, is_used: bool) -> Result<()> {
        for (flag, value) in [("--license", &self.license), ("--repo", &self.repo)] {
            let Some(value) = value.as_ref().filter(|_| !is_used) else { continue };
            bail!("{flag} is {value}, but it is for --format hub");
        }
        let is_id = |text: &str| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
            !text.is_empty() && text.chars().all(plain)
        };
        if let Some(license) = self.license.as_ref().filter(|license| !is_id(license)) {
            bail!(
                "--license is {license:?}, but it must be the hub's short name of a licence, such \
                 as mit, apache-2.0, cc-by-nc-4.0, or other"
            );
        }
        if let Some(repo) = &self.repo {
            let name = format!("hf:{repo}").parse::<backbone::hub::Name>();
            let is_repo = name.is_ok_and(|name| name.repo_id() == *repo);
            ensure!(is_repo, "--repo is {repo:?}, but it must be OWNER/NAME");
        }
        Ok(())
    }

    /// The licence, by the hub's short name.
    pub(super) fn license(&self) -> &str {
        self.license.as_deref().unwrap_or("other")
    }

    /// `OWNER/NAME`, as given or as that.
    pub(super) fn repo(&self) -> &str {
        self.repo.as_deref().unwrap_or("OWNER/NAME")
    }
}

/// Writes a folder for the hub: what `fill` writes into it (weights and configuration), `card`, and
/// from the run's folder the loss curve and the newest reconstructions. It is made beside its place
/// and then put there, so that it is whole or absent.
///
/// # Errors
/// The folder is there and not empty; what `fill` returns; files that cannot be written.
pub fn write_hub_folder(
    to: &Output,
    flags: &HubFlags,
    card: &Card,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    to.check_is_new()?;
    let output = to.path();
    let there = || format!("cannot look into {}", output.display());
    match fs::read_dir(output) {
        Ok(mut entries) => ensure!(
            entries.next().is_none(),
            "{} is not empty, and nothing in it is written over: name a new folder",
            display_path(output)
        ),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(there),
    }
    let parent = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_folder(parent)?;
    let temporary = tempfile::Builder::new().prefix(".hub-").tempdir_in(parent);
    let temporary =
        temporary.with_context(|| format!("cannot make a folder in {}", parent.display()))?;
    let folder = temporary.path();
    fill(folder)?;
    let pictures = pictures(folder, card)?;
    write_file(&folder.join(CARD), card.text(flags, &pictures).as_bytes())?;
    // As a new folder of the user's has them, not a temporary one's.
    let plain = folder.join("permissions");
    fs::create_dir(&plain).with_context(there)?;
    let permissions = fs::metadata(&plain).with_context(there)?.permissions();
    fs::remove_dir(&plain).with_context(there)?;
    fs::set_permissions(folder, permissions).with_context(there)?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(there)?;
    fs::rename(folder, output)
        .with_context(|| format!("cannot put the folder in its place, {}", output.display()))?;
    // What was in it has moved.
    let _ = temporary.close();
    if to.is_here() {
        println!("upload it with: hf upload {} {}", flags.repo(), output.display());
    }
    if let Some(picture) = pictures.iter().find(|&&picture| picture != CURVE) {
        println!("{picture} in it shows images of the data: look whether these may be published");
    }
    Ok(())
}

/// Puts the run's pictures into `folder`; their names.
fn pictures(folder: &Path, card: &Card) -> Result<Vec<&'static str>> {
    let Some(run) = &card.run else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    let metrics = run.join("metrics.jsonl");
    if metrics.is_file()
        && let Some(curve) = loss_curve(&metrics, &card.model, "training loss")?
    {
        write_file(&folder.join(CURVE), &png(&curve)?)?;
        names.push(CURVE);
    }
    for (name, newest) in [(PICTURE, newest_picture(run)), (FOUND, Some(run.join(FOUND)))] {
        let Some(newest) = newest.filter(|path| path.is_file()) else { continue };
        fs::copy(&newest, folder.join(name))
            .with_context(|| format!("cannot copy {}", newest.display()))?;
        names.push(name);
    }
    Ok(names)
}

/// The reconstructions at a run's end, else the last that were drawn in it.
fn newest_picture(run: &Path) -> Option<PathBuf> {
    let last = run.join(PICTURE);
    if last.is_file() {
        return Some(last);
    }
    let entries = fs::read_dir(run.join("pictures")).ok()?;
    let drawn = entries.flatten().map(|entry| entry.path());
    drawn.filter(|path| path.extension().is_some_and(|end| end == "png")).max()
}
