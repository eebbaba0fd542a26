//! One JSON object a line, in the order of the steps.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{LogSink, TrainRecord};
use crate::{Error, Result};

/// Appends records to a `.jsonl` file. Each line reaches the system at once,
/// so a killed process loses none, and tears at most the last.
#[derive(Debug)]
pub struct JsonlWriter {
    path: PathBuf,
    file: File,
}

impl JsonlWriter {
    /// Starts an empty file at `path`.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|e| Error::io(path, e))?;
        Ok(JsonlWriter { path: path.to_owned(), file })
    }

    /// Continues the file of a run that resumes after `step`: later lines and
    /// a torn last one are dropped, since the run will write them again. A
    /// file that does not exist is started.
    ///
    /// # Errors
    /// [`Error::Input`]; [`Error::Checkpoint`] if a line before the last is no
    /// record.
    pub fn resume(path: &Path, step: u64) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(path).map_err(io)?;
        let end = end_of_step(path, &file, step)?;
        file.set_len(end).map_err(io)?;
        Ok(JsonlWriter { path: path.to_owned(), file })
    }

    /// Appends one record: an object with an integer `step`, never below the
    /// one before.
    ///
    /// # Errors
    /// [`Error::Input`] if it is anything else, or cannot be written.
    pub fn write(&mut self, record: &(impl Serialize + ?Sized)) -> Result<()> {
        let mut line = serde_json::to_vec(record)
            .map_err(|e| Error::invalid("a metrics record", "not serializable", e.to_string()))?;
        if step_of(&line).is_none() {
            let text = String::from_utf8_lossy(&line).into_owned();
            return Err(Error::invalid("a metrics record", text, "it needs an integer `step`"));
        }
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| Error::io(&self.path, e))
    }
}

impl LogSink for JsonlWriter {
    fn log_train(&mut self, record: &TrainRecord) -> Result<()> {
        self.write(record)
    }

    fn log_record(&mut self, record: &RawValue) -> Result<()> {
        self.write(record)
    }
}

/// Takes the figures of the evaluation after step `step`, which is made again, out of the file at
/// `path`, if there is one: every record of that step that is neither the step's own nor the
/// epoch's.
///
/// # Errors
/// [`Error::Input`].
pub fn drop_evaluation(path: &Path, step: u64) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let is_kept = |line: &&str| match serde_json::from_str::<Value>(line) {
        Ok(record) => {
            let of_training = ["loss", "epoch_loss"].iter().any(|key| record.get(key).is_some());
            record["step"].as_u64() != Some(step) || of_training
        }
        Err(_) => true,
    };
    let kept: String = text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
    if kept.len() < text.len() {
        data::write_file(path, kept.as_bytes())?;
    }
    Ok(())
}

/// The length in bytes of the lines up to and with `step`.
fn end_of_step(path: &Path, file: &File, step: u64) -> Result<u64> {
    let mut lines = BufReader::new(file);
    let mut end = 0;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let length = lines.read_until(b'\n', &mut line).map_err(|e| Error::io(path, e))?;
        let torn = line.last() != Some(&b'\n');
        if torn {
            break;
        }
        match step_of(&line) {
            Some(found) if found <= step => end += length as u64,
            Some(_) => break,
            None => {
                let problem = format!("line {number} is no record with an integer `step`");
                return Err(Error::checkpoint(path, problem));
            }
        }
    }
    Ok(end)
}

fn step_of(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(line).ok()?.get("step")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::super::sink::example;
    use super::*;
    use serde_json::json;
    use std::fs;

    fn three_steps(path: &Path) {
        let mut writer = JsonlWriter::create(path).unwrap();
        for step in 1..=3 {
            writer.write(&json!({ "step": step, "loss": 0.5 })).unwrap();
        }
    }

    fn steps(path: &Path) -> Vec<u64> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| step_of(line.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn a_resumed_file_equals_an_uninterrupted_one() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, path) = (folder.path().join("a"), folder.path().join("b"));
        three_steps(&whole);
        for torn in ["", "{\"st", "{\"step\":4,\"loss\":0.5}", "{\"step\":4}\n{\"st"] {
            three_steps(&path);
            OpenOptions::new()
                .append(true)
                .open(&path)
                .unwrap()
                .write_all(torn.as_bytes())
                .unwrap();
            let mut writer = JsonlWriter::resume(&path, 1).unwrap();
            assert_eq!(steps(&path), [1], "{torn}");
            for step in 2..=3 {
                writer.write(&json!({ "step": step, "loss": 0.5 })).unwrap();
            }
            assert_eq!(fs::read(&path).unwrap(), fs::read(&whole).unwrap(), "{torn}");
        }
    }

    #[test]
    fn nothing_is_dropped_up_to_the_step_and_a_missing_file_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        JsonlWriter::resume(&path, 7).unwrap().write(&json!({ "step": 8 })).unwrap();
        assert_eq!(steps(&path), [8]);
        three_steps(&path);
        JsonlWriter::resume(&path, 3).unwrap();
        assert_eq!(steps(&path), [1, 2, 3]);
        // A line without its end would run into the next.
        fs::write(&path, "{\"step\":1}\n{\"step\":2}").unwrap();
        JsonlWriter::resume(&path, 2).unwrap();
        assert_eq!(steps(&path), [1]);
    }

    /// Programs read these lines: names and order of the numbers stay.
    #[test]
    fn a_training_record_is_one_flat_object() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut sink = JsonlWriter::create(&path).unwrap();
        let parts = [("mask", 0.5), ("box", 0.25)].into();
        let alone = example(&parts);
        let record = TrainRecord { data_wait_by_rank: &[0.75, 0.0], ..alone.clone() };
        sink.log_train(&record).unwrap();
        sink.log_train(&TrainRecord { grad_norm: None, ..alone }).unwrap();
        let extra = serde_json::value::to_raw_value(&json!({ "step": 3, "top1": 0.5 })).unwrap();
        sink.log_record(&extra).unwrap();
        let start = r#"{"step":300,"epoch":1.5,"loss":0.75,"box":0.25,"mask":0.5,"lr":0.125,"#;
        let speed = r#""images_per_second":8.0,"data_wait":0.375"#;
        let expected = format!(
            "{start}\"weight_decay\":0.0625,\"grad_norm\":2.0,{speed},\
             \"data_wait_by_rank\":[0.75,0.0]}}\n\
             {start}\"weight_decay\":0.0625,{speed}}}\n{{\"step\":3,\"top1\":0.5}}\n"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        let mut writer = JsonlWriter::create(&path).unwrap();
        let error = writer.write(&json!({ "loss": 1.0 })).unwrap_err().to_string();
        assert!(error.contains("needs an integer `step`"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"");

        fs::write(&path, "{\"step\":1}\nhello\n{\"step\":2}\n").unwrap();
        let error = JsonlWriter::resume(&path, 2).unwrap_err().to_string();
        assert!(error.contains("m.jsonl: line 2 is no record"), "{error}");
        assert_eq!(fs::read(&path).unwrap().len(), 28, "an unknown file is left as it was");
    }
}
