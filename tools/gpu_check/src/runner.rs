//! Runs sections, each as a process of its own with a time limit, and collects what they tell.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::recorder::Event;
use crate::report::{Item, SectionReport, Status};

/// A section to be run.
#[derive(Debug)]
pub struct Start {
    /// Its name.
    pub name: String,
    /// What it checks.
    pub what: String,
    /// The time it may take.
    pub limit: Duration,
    /// What runs it.
    pub command: Command,
    /// Where its standard error goes.
    pub log: PathBuf,
}

/// Runs a section to its end, or to that of its time; `progress` gets a line for each check.
///
/// # Errors
/// It cannot be started, or its log not be written. What goes wrong later is a failed check.
pub fn run(mut start: Start, progress: &mut dyn FnMut(&Item)) -> Result<SectionReport> {
    let begun = Instant::now();
    let log = File::create(&start.log)
        .with_context(|| format!("cannot write {}", start.log.display()))?;
    // A group of its own, to be ended with whatever it has started.
    start.command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = start.command.spawn().with_context(|| {
        format!(
            "cannot start {} for the section {}",
            start.command.get_program().display(),
            start.name
        )
    })?;
    let lines = lines_of(&mut child)?;

    let (mut items, mut under_way) = (Vec::new(), None::<String>);
    let mut note = |item: Item| {
        progress(&item);
        items.push(item);
    };
    let ended = loop {
        let left = start.limit.saturating_sub(begun.elapsed());
        match lines.recv_timeout(left) {
            Ok(line) => match serde_json::from_str(&line) {
                Ok(Event::Begin(name)) => under_way = Some(name),
                Ok(Event::End(item)) => {
                    under_way = None;
                    note(item);
                }
                // Of a library that prints.
                Err(_) => {}
            },
            Err(RecvTimeoutError::Timeout) => {
                end(&mut child);
                break Some(format!("the section's {} s were over", start.limit.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().context("waiting for a section")?;
                break (!status.success())
                    .then(|| format!("the section ended ({status}){}", last_words(&start.log)));
            }
        }
    };
    if let Some(why) = ended {
        let name = under_way.unwrap_or_else(|| "the rest of the section".into());
        note(Item::without_figure(&name, Status::Failed, why));
    }
    let (limit_s, seconds) = (start.limit.as_secs_f64(), begun.elapsed().as_secs_f64());
    Ok(SectionReport { name: start.name, what: start.what, limit_s, seconds, items })
}

/// The lines that `child` says, until it ends. Read by a thread, as a pipe cannot be waited for
/// with patience.
fn lines_of(child: &mut Child) -> Result<Receiver<String>> {
    let output = child.stdout.take().context("a section without output")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            // Nobody listens once the time is over.
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Ok(lines)
}

/// Ends `child` and what it has started.
fn end(child: &mut Child) {
    let group = format!("kill -KILL -- -{}", child.id());
    // One that is gone already is what is wanted.
    let _ = Command::new("sh").args(["-c", &group]).stderr(Stdio::null()).status();
    let _ = child.kill();
    let _ = child.wait();
}

/// The end of what a section wrote to standard error.
fn last_words(log: &Path) -> String {
    const LINES: usize = 6;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let shown = &lines[lines.len().saturating_sub(LINES)..];
    if shown.is_empty() { String::new() } else { format!(": {}", shown.join(" / ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(script: &str, seconds: f64) -> SectionReport {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let start = Start {
            name: "a section".into(),
            what: "something".into(),
            limit: Duration::from_secs_f64(seconds),
            command,
            log: folder.path().join("log"),
        };
        run(start, &mut |_| {}).unwrap()
    }

    const ENDED: &str = r#"echo '{"end":{"name":"one","status":"passed","figure":0.5,"unit":"","tolerance":null,"note":"","seconds":0.1}}';"#;

    #[test]
    fn what_a_section_tells_is_kept() {
        let report = section(&format!("echo chatter; {ENDED}"), 20.0);
        let [item] = &report.items[..] else { panic!("{report:?}") };
        assert_eq!((item.name.as_str(), item.figure), ("one", Some(0.5)));
    }

    #[test]
    fn a_crash_is_that_of_the_check_under_way() {
        let script = format!("{ENDED} echo '{{\"begin\":\"two\"}}'; echo oh no >&2; kill -SEGV $$");
        let report = section(&script, 20.0);
        let [_, crashed] = &report.items[..] else { panic!("{report:?}") };
        assert_eq!((crashed.name.as_str(), crashed.status), ("two", Status::Failed));
        assert!(
            crashed.note.contains("signal") && crashed.note.ends_with(": oh no"),
            "{crashed:?}"
        );
    }

    #[test]
    fn what_takes_too_long_is_ended_with_what_it_started() {
        let begun = Instant::now();
        let report = section("echo '{\"begin\":\"slow\"}'; sleep 60 & wait", 0.5);
        assert!(begun.elapsed() < Duration::from_secs(20));
        let [slow] = &report.items[..] else { panic!("{report:?}") };
        assert_eq!(slow.name, "slow");
        assert!(slow.note.contains("s were over"), "{slow:?}");
    }
}
