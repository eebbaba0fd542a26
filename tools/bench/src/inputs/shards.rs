//! Tar shards of small photographs, and a store that has them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use data::shards::{self, Folder, LabelsFrom, Pictures, SUMMARY, ShardSettings, Summary, Watcher};
use data::{ByteSize, DatasetOptions};

use super::{Inputs, whole};
use crate::duel::Settings;

/// Bytes of a shard: some for each thread.
const SIZE: ByteSize = ByteSize(8_000_000);
/// The program that is a store, beside `bench`.
const SERVER: &str = "examples/serve_objects";

/// Makes shards of `files` photographs in `path`.
pub(super) fn make(settings: &Settings, files: usize, path: &Path) -> Result<()> {
    let photographs = Inputs::Folder { files };
    photographs.make(settings)?;
    let options = DatasetOptions { listings: None, ..DatasetOptions::default() };
    let source = photographs.path(&settings.folder);
    let pictures = Pictures::open(&source, &options, LabelsFrom::None)?;
    let of = ShardSettings { size: SIZE, ..ShardSettings::default() };
    whole(path, |part| {
        let folder = Folder::open(part.join("set"))?;
        shards::make(&pictures, &folder, &of, 0.0, settings.threads, &Unseen)?;
        Ok(())
    })
}

struct Unseen;

impl Watcher for Unseen {
    fn begin(&self, _: u64, _: u64) {}

    fn advance(&self, _: u64, _: u64) {}
}

/// A store with the shards, each answer of which takes a while; it ends when dropped.
pub struct Server {
    process: Child,
    /// What clients find it by.
    pub env: Vec<(String, String)>,
    /// Where the shards are in it.
    pub location: PathBuf,
}

impl Server {
    /// Serves what lies in `folder`.
    ///
    /// # Errors
    /// It was not built, or does not start.
    pub fn start(settings: &Settings, folder: &Path, delay_ms: u64) -> Result<Self> {
        let beside = settings.program.parent().unwrap_or(Path::new(""));
        let program = beside.join(SERVER);
        ensure!(
            program.exists(),
            "{} is not there: build it with `cargo build --release -p spark-test-objects --example \
             serve_objects`",
            program.display()
        );
        let mut command = Command::new(&program);
        command.args(["--delay", &delay_ms.to_string()]);
        let mut bucket = std::ffi::OsString::from("shards=");
        bucket.push(folder.join("set"));
        let mut process = command.arg(bucket).stdout(Stdio::piped()).spawn()?;
        let stdout = process.stdout.take().context("no output")?;
        let mut server = Self { process, env: Vec::new(), location: "s3://shards/".into() };
        let summary: Summary =
            serde_json::from_slice(&std::fs::read(folder.join("set").join(SUMMARY))?)?;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            let Some((name, value)) =
                line.strip_prefix("export ").and_then(|line| line.split_once('='))
            else {
                break;
            };
            server.env.push((name.to_owned(), value.to_owned()));
        }
        ensure!(!server.env.is_empty(), "{} says nothing", program.display());
        // A web server lists nothing.
        server.env.push(("SHARDS".to_owned(), summary.shards.len().to_string()));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
