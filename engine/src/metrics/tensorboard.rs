//! TensorBoard event files: TFRecord framing around `Event` messages.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::proto::{What, event};
use super::{LogSink, TrainRecord};
use crate::{Error, Result};

/// Writes scalars, pictures and text into an event file of its own. Each
/// event reaches the system at once.
#[derive(Debug)]
pub struct TensorBoardWriter {
    path: PathBuf,
    file: File,
}

impl TensorBoardWriter {
    /// Starts an event file in `folder`, which is created. A run that resumes
    /// gives the first step that it will write as `restart`: TensorBoard then
    /// drops what earlier files hold from that step on.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn create(folder: &Path, restart: Option<u64>) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let (path, file) = new_file(folder)?;
        let mut writer = TensorBoardWriter { path, file };
        writer.record(0, What::FileVersion)?;
        if let Some(step) = restart {
            writer.record(step, What::Restart)?;
        }
        Ok(writer)
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a number; its precision is float32.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<()> {
        self.record(step, What::Scalar { tag, value: value as f32 })
    }

    /// Writes a picture, given as the bytes of a PNG file.
    ///
    /// # Errors
    /// [`Error::Input`] if they are not one; [`Error::Input`].
    pub fn image(&mut self, tag: &str, step: u64, png: &[u8]) -> Result<()> {
        let Some((size, channels)) = png_header(png) else {
            let operand = format!("picture {tag}");
            return Err(Error::invalid(operand, "not a PNG file", "TensorBoard gets PNG"));
        };
        self.record(step, What::Image { tag, png, size, channels })
    }

    /// Writes text, which TensorBoard shows as Markdown.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn text(&mut self, tag: &str, step: u64, text: &str) -> Result<()> {
        self.record(step, What::Text { tag, text })
    }

    fn record(&mut self, step: u64, what: What) -> Result<()> {
        let record = frame(&event(now(), step, what));
        self.file.write_all(&record).map_err(|e| Error::io(&self.path, e))
    }
}

impl LogSink for TensorBoardWriter {
    fn log_train(&mut self, record: &TrainRecord) -> Result<()> {
        let step = record.step;
        self.scalar("train/loss", step, record.loss)?;
        for (name, value) in record.parts.iter().chain(&record.more) {
            self.scalar(&format!("train/{name}"), step, *value)?;
        }
        self.scalar("train/lr", step, record.lr)?;
        if let Some(norm) = record.grad_norm {
            self.scalar("train/grad_norm", step, norm)?;
        }
        self.scalar("speed/images_per_second", step, record.images_per_second)?;
        self.scalar("speed/data_wait", step, record.data_wait)
    }

    fn log_scalar(&mut self, step: u64, tag: &str, value: f64) -> Result<()> {
        self.scalar(tag, step, value)
    }

    fn log_image(&mut self, step: u64, tag: &str, png: &[u8]) -> Result<()> {
        self.image(tag, step, png)
    }
}

/// A TFRecord: length, its checksum, data, its checksum.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let checksums = [masked_crc(&length), masked_crc(data)].map(u32::to_le_bytes);
    [&length, checksums[0].as_slice(), data, &checksums[1]].concat()
}

/// CRC-32C, rotated and shifted so that a checksum over data that contains
/// checksums stays a good one.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A file in the naming that TensorBoard looks for and sorts by.
fn new_file(folder: &Path) -> Result<(PathBuf, File)> {
    let host = gethostname::gethostname();
    let stem = format!(
        "events.out.tfevents.{:010}.{}.{}",
        now().as_secs(),
        host.to_string_lossy().replace(['/', '\\'], "-"),
        std::process::id()
    );
    // A process can start several in one second.
    let mut path = folder.join(&stem);
    for number in 1.. {
        match File::create_new(&path) {
            Ok(file) => return Ok((path, file)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                path = folder.join(format!("{stem}.{number}"));
            }
            Err(e) => return Err(Error::io(&path, e)),
        }
    }
    unreachable!("a folder has finitely many files")
}

fn now() -> Duration {
    // A clock before 1970 is shown as 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// (width, height) and the number of channels, from the IHDR chunk.
fn png_header(png: &[u8]) -> Option<((u32, u32), u8)> {
    let chunk = png.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")?;
    let number = |at: usize| Some(u32::from_be_bytes(chunk.get(at..at + 4)?.try_into().ok()?));
    let channels = match chunk.get(9)? {
        0 => 1,
        4 => 2,
        2 | 3 => 3,
        6 => 4,
        _ => return None,
    };
    Some(((number(0)?, number(4)?), channels))
}

#[cfg(test)]
mod tests {
    use super::super::sink::example;
    use super::*;

    /// Checks the framing of a file and returns the messages.
    fn records(path: &Path) -> Vec<Vec<u8>> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut records = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let (data, tail) = rest[12..].split_at(length);
            assert_eq!(tail[..4], masked_crc(data).to_le_bytes());
            records.push(data.to_vec());
            rest = &tail[4..];
        }
        records
    }

    /// RFC 3720, B.4: 32 bytes of zeros have the CRC-32C 8a9136aa.
    #[test]
    fn checksums_are_the_masked_castagnoli_ones() {
        let masked = 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked_crc(&[0; 32]), masked);
    }

    #[test]
    fn the_bytes_of_a_scalar_event_are_those_of_the_schema() {
        let bytes = event(Duration::from_secs(1), 300, What::Scalar { tag: "a", value: 1.0 });
        let expected = [
            &[0x09][..],
            &1f64.to_le_bytes(),
            &[0x10, 0xac, 0x02],
            &[0x2a, 0x0a, 0x0a, 0x08, 0x0a, 0x01, b'a', 0x15],
            &1f32.to_le_bytes(),
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn a_resumed_run_starts_with_a_restart_in_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let first = TensorBoardWriter::create(folder.path(), None).unwrap();
        let second = TensorBoardWriter::create(folder.path(), Some(5)).unwrap();
        assert_ne!(first.path(), second.path());
        let records = records(second.path());
        assert_eq!(records.len(), 2);
        assert_eq!(records[0][9..], *b"\x10\x00\x1a\x0dbrain.Event:2");
        assert_eq!(records[1][9..], *b"\x10\x05\x3a\x02\x08\x01");
        let name = second.path().file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("events.out.tfevents."), "{name}");
        assert!(name.contains(&format!(".{}", std::process::id())), "{name}");
    }

    /// Dashboards know these tags: names and order of the curves stay.
    #[test]
    fn a_training_record_is_a_curve_for_each_number() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = TensorBoardWriter::create(folder.path(), None).unwrap();
        let parts = [("mask", 0.5), ("box", 0.25)].into();
        let record = example(&parts);
        sink.log_train(&record).unwrap();
        sink.log_scalar(301, "epoch/loss", 1.0).unwrap();
        sink.log_train(&TrainRecord { grad_norm: None, ..record }).unwrap();
        let curves = [
            ("train/loss", 0.75),
            ("train/box", 0.25),
            ("train/mask", 0.5),
            ("train/weight_decay", 0.0625),
            ("train/lr", 0.125),
            ("train/grad_norm", 2.0),
            ("speed/images_per_second", 8.0),
            ("speed/data_wait", 0.375),
        ];
        let at = |step, (tag, value): (&str, f32)| {
            // All but the time.
            event(Duration::ZERO, step, What::Scalar { tag, value })[9..].to_vec()
        };
        let mut expected = curves.map(|curve| at(300, curve)).to_vec();
        expected.push(at(301, ("epoch/loss", 1.0)));
        let rest = curves.into_iter().filter(|(tag, _)| *tag != "train/grad_norm");
        expected.extend(rest.map(|curve| at(300, curve)));
        let found: Vec<Vec<u8>> =
            records(sink.path())[1..].iter().map(|record| record[9..].to_vec()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_picture_that_is_no_png_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = TensorBoardWriter::create(folder.path(), None).unwrap();
        let error = writer.image("sheet", 1, b"GIF89a").unwrap_err().to_string();
        assert!(error.contains("picture sheet is not a PNG file"), "{error}");
        let cut = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01";
        assert!(writer.image("sheet", 1, cut).is_err());
    }
}
