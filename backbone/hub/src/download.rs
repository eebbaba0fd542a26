//! One file, from wherever its last download broke off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::client::{Client, Failure, failure, number, text};
use crate::retry::Retry;
use crate::{Error, Result, verify};

const CHUNK: usize = 1 << 18;
/// So many bytes more are worth as many tries as before.
const PROGRESS: u64 = 1 << 20;

/// A file to fetch.
#[derive(Debug)]
pub(crate) struct Download<'a> {
    pub(crate) client: &'a Client<'a>,
    /// What messages call it.
    pub(crate) title: String,
    pub(crate) url: String,
    pub(crate) etag: &'a str,
    /// Its length in bytes, if the hub tells.
    pub(crate) size: Option<u64>,
    /// Where it is to lie.
    pub(crate) blob: PathBuf,
    /// Whether nobody else writes its unfinished part, which may then be continued.
    pub(crate) locked: bool,
}

/// Why a part did not come.
enum Broken {
    /// It may come when asked for again.
    Failure(Failure),
    /// It never will.
    Final(Error),
}

impl Download<'_> {
    /// Fetches, checks length and hash, and only then puts the file in its place. What had come
    /// when it failed is kept, unless it is wrong.
    pub(crate) fn run(&self) -> Result<()> {
        let suffix = match self.locked {
            true => "incomplete".into(),
            false => format!("{}.incomplete", std::process::id()),
        };
        let path = self.blob.with_added_extension(suffix);
        let options =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = options.map_err(Error::io(&path))?;
        let outcome = self.fill(&mut file, &path);
        if outcome.is_err() && (!self.locked || is_empty(&file)) {
            let _ = fs::remove_file(&path);
        }
        outcome?;
        file.sync_all().map_err(Error::io(&path))?;
        fs::rename(&path, &self.blob).map_err(Error::io(&self.blob))
    }

    fn fill(&self, file: &mut File, path: &Path) -> Result<()> {
        let bar = self.bar();
        let mut retry = Retry::new(self.client.settings.pause);
        let mut continued = !is_empty(file);
        loop {
            let before = length(file);
            match self.receive(file, path, &bar) {
                Ok(()) => {
                    if verify::matches(file, self.etag).map_err(Error::io(path))? {
                        bar.finish_and_clear();
                        return Ok(());
                    }
                    file.set_len(0).map_err(Error::io(path))?;
                    if !continued {
                        return Err(self.damaged(format!(
                            "what came has another hash than {}, which the hub announced; it is \
                             deleted. Try again, or look what stands between here and there",
                            self.etag
                        )));
                    }
                    // The part that was there before may be of another file.
                    continued = false;
                }
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Failure(failure)) => {
                    if length(file) >= before + PROGRESS {
                        retry.reset();
                    }
                    continued |= !is_empty(file);
                    retry.wait(&failure).map_err(|problem| {
                        let kept = match self.locked && !is_empty(file) {
                            true => "; what has come is kept, and continued next time",
                            false => "",
                        };
                        let problem = format!("{problem}{kept}");
                        Error::Unreachable { name: self.title.clone(), problem }
                    })?;
                }
            }
        }
    }

    /// Asks for what is missing, and appends it.
    fn receive(
        &self,
        file: &mut File,
        path: &Path,
        bar: &ProgressBar,
    ) -> std::result::Result<(), Broken> {
        let broken_file = |source| Broken::Final(Error::io(path)(source));
        if self.size.is_some_and(|size| length(file) > size) {
            file.set_len(0).map_err(broken_file)?;
        }
        let mut have = file.seek(SeekFrom::End(0)).map_err(broken_file)?;
        if Some(have) == self.size {
            return Ok(());
        }
        let mut answer = match self.client.get(&self.url, have) {
            Err(Failure::Status(status)) if status.code == 416 => {
                file.set_len(0).map_err(broken_file)?;
                let text = format!("{} has nothing from byte {have} on", self.title);
                return Err(Broken::Failure(Failure::Lost(text)));
            }
            other => other.map_err(Broken::Failure)?,
        };
        let range = text(answer.headers(), "content-range");
        let continues = range.is_some_and(|range| range.starts_with(&format!("bytes {have}-")));
        if have > 0 && !(answer.status() == 206 && continues) {
            // A server without ranges sends all of it.
            file.set_len(0).map_err(broken_file)?;
            have = file.seek(SeekFrom::Start(0)).map_err(broken_file)?;
            if answer.status() == 206 {
                let text = format!("another part of {} came than was asked for", self.title);
                return Err(Broken::Failure(Failure::Lost(text)));
            }
        }
        let total = number(answer.headers(), "content-length").map(|rest| have + rest);
        self.check_total(total)?;
        bar.set_length(self.size.or(total).unwrap_or(0));
        bar.reset_eta();
        let mut reader = answer.body_mut().as_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            bar.set_position(have);
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    let failure = failure(ureq::Error::from(e), &self.url);
                    return Err(Broken::Failure(failure.after(have, self.size.or(total))));
                }
            };
            have += count as u64;
            if self.size.is_some_and(|size| have > size) {
                file.set_len(0).map_err(broken_file)?;
                return Err(Broken::Final(self.too_long(have)));
            }
            file.write_all(&buffer[..count]).map_err(broken_file)?;
        }
        match self.size.or(total) {
            Some(size) if have < size => {
                let end = Failure::Lost("the connection broke off".into());
                Err(Broken::Failure(end.after(have, Some(size))))
            }
            _ => Ok(()),
        }
    }

    /// Whether as many bytes will come as the hub said.
    fn check_total(&self, total: Option<u64>) -> std::result::Result<(), Broken> {
        match (self.size, total) {
            (Some(size), Some(total)) if size != total => {
                Err(Broken::Final(self.damaged(format!(
                    "the hub announced {size} bytes, but {total} are sent; nothing of them is kept"
                ))))
            }
            _ => Ok(()),
        }
    }

    fn too_long(&self, have: u64) -> Error {
        let size = self.size.unwrap_or(0);
        self.damaged(format!("the hub announced {size} bytes, but at least {have} came"))
    }

    fn damaged(&self, problem: String) -> Error {
        Error::Damaged { name: self.title.clone(), problem }
    }

    fn bar(&self) -> ProgressBar {
        let target = match self.client.settings.progress {
            // Which draws nothing where it is no terminal.
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let template = "{msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
        let style = ProgressStyle::with_template(template);
        ProgressBar::with_draw_target(self.size, target)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_message(self.title.clone())
    }
}

fn length(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

fn is_empty(file: &File) -> bool {
    length(file) == 0
}
