//! What a file is, told from its first bytes.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::sharded;
use super::zip_file::open_zip;
use crate::{Error, Result, pt2};

/// The kinds of weight file that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A `.safetensors` file.
    Safetensors,
    /// What `torch.save` writes since PyTorch 1.6.
    TorchZip,
    /// What `torch.save` wrote from 0.1.10 to 1.5.
    TorchLegacy,
    /// What `torch.save` wrote before 0.1.10.
    TorchTar,
    /// What `torch.export.save` writes: a network's graph with its weights (`.pt2`).
    ExportedProgram,
    /// A pickle with numpy arrays, as detectron2's model zoo has.
    Pickle,
    /// A folder with `config.json` and weights, timm's `local-dir:`.
    TimmFolder,
    /// Several files, and an index of what lies in which
    /// (`model.safetensors.index.json`).
    Sharded,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::Safetensors => "safetensors file",
            Format::TorchZip => "PyTorch checkpoint",
            Format::TorchLegacy => "PyTorch checkpoint (before 1.6)",
            Format::TorchTar => "PyTorch checkpoint (before 0.1.10)",
            Format::ExportedProgram => "exported program",
            Format::Pickle => "pickle of numpy arrays",
            Format::TimmFolder => "timm folder",
            Format::Sharded => "set of files with an index",
        })
    }
}

/// Bytes looked at: a tar header's magic ends at 262.
const HEAD: usize = 512;
/// How a zip archive with anything in it begins.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
/// Where a tar header says `ustar`.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;
/// The number 0x1950a86a20f9469cfc6c that opens a legacy checkpoint, as a
/// pickle stores it.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The same as protocols 0 and 1 store it.
const LEGACY_MAGIC_TEXT: &[u8] = b"L119547037146038801333356L";
/// How pickles of dictionaries and lists begin that do not say their protocol (0, 1).
const OLD_PICKLES: [&[u8]; 7] =
    [b"(dp", b"(lp", b"}q", b"]q", b"ccollections\n", b"ccopy_reg\n", b"ccopyreg\n"];

/// The format of the file or folder at `path`.
///
/// # Errors
/// [`Error::Io`] if it can't be opened, [`Error::Format`] saying what it seems
/// to be if it is no weight file.
pub(crate) fn format_of(path: &Path) -> Result<Format> {
    if path.is_dir() {
        return folder_format(path);
    }
    let file = File::open(path).map_err(|source| Error::io(path, source))?;
    let mut head = Vec::with_capacity(HEAD);
    file.take(HEAD as u64).read_to_end(&mut head).map_err(|source| Error::io(path, source))?;
    if head.trim_ascii_start().starts_with(b"{") && sharded::is_index(path) {
        return Ok(Format::Sharded);
    }
    if head.starts_with(ZIP_MAGIC) && is_program(path) {
        return Ok(Format::ExportedProgram);
    }
    recognise(&head).map_err(|guess| {
        Error::format(
            path,
            format!(
                "not a weight file: it is {guess}. \
                 Readable are .safetensors, .pth/.pt/.bin, .pt2, detectron2 .pkl and timm folders"
            ),
        )
    })
}

/// Whether the zip archive at `path` is an exported program; if it is damaged, no.
fn is_program(path: &Path) -> bool {
    let Ok(zip) = File::open(path).map(BufReader::new).map(open_zip) else { return false };
    zip.is_ok_and(|zip| pt2::is_program(zip.file_names_raw()))
}

fn folder_format(path: &Path) -> Result<Format> {
    if path.join("config.json").is_file() {
        return Ok(Format::TimmFolder);
    }
    if sharded::index_in(path)?.is_some() {
        return Ok(Format::Sharded);
    }
    if path.join(".metadata").is_file() {
        return Err(Error::format(
            path,
            "a distributed checkpoint; make one file of it with python -m \
             torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE",
        ));
    }
    Err(Error::format(
        path,
        "a folder without config.json or *.index.json; give a weight file, a timm folder \
         (config.json and model.safetensors), or one with an index of several files",
    ))
}

/// The format, or what else the bytes look like.
fn recognise(head: &[u8]) -> std::result::Result<Format, String> {
    if starts_like_safetensors(head) {
        Ok(Format::Safetensors)
    } else if head.starts_with(ZIP_MAGIC) {
        Ok(Format::TorchZip)
    } else if head.get(TAR_MAGIC) == Some(b"ustar") {
        Ok(Format::TorchTar)
    } else if is_legacy(&head[..head.len().min(64)]) {
        Ok(Format::TorchLegacy)
    } else if matches!(head, [0x80, 0..=5, ..])
        || OLD_PICKLES.iter().any(|start| head.starts_with(start))
    {
        Ok(Format::Pickle)
    } else {
        Err(guess(head))
    }
}

fn is_legacy(head: &[u8]) -> bool {
    head.windows(LEGACY_MAGIC.len()).any(|window| window == LEGACY_MAGIC)
        || head.starts_with(LEGACY_MAGIC_TEXT)
}

/// A little-endian header length, then the `{` of the JSON header. The length
/// alone may equal a pickle's first bytes, so both are looked at.
fn starts_like_safetensors(head: &[u8]) -> bool {
    const LARGEST_HEADER: u64 = 100_000_000; // the format's own limit
    let length = head.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    length.is_some_and(|n| (2..=LARGEST_HEADER).contains(&n)) && head.get(8) == Some(&b'{')
}

fn guess(head: &[u8]) -> String {
    let known: [(&[u8], &str); 14] = [
        (b"\x89HDF", "HDF5 (a Keras or MATLAB file)"),
        (b"\x93NUMPY", "a single numpy array (.npy)"),
        (b"PK\x05\x06", "an empty zip archive"),
        (b"\x1f\x8b", "gzip; unpack it first"),
        (b"\xfd7zXZ", "xz; unpack it first"),
        (b"BZh", "bzip2; unpack it first"),
        (b"\x28\xb5\x2f\xfd", "Zstandard; unpack it first"),
        (b"GGUF", "GGUF (llama.cpp)"),
        (b"\x89PNG", "a PNG image"),
        (b"\xff\xd8\xff", "a JPEG image"),
        (
            b"version https://git-lfs",
            "a Git LFS pointer; fetch the file itself with `git lfs pull`",
        ),
        (b"<!DOCTYPE", "a web page; the download went wrong"),
        (b"<html", "a web page; the download went wrong"),
        (b"{", "JSON text"),
    ];
    if head.is_empty() {
        return "empty".into();
    }
    if head.iter().all(|&byte| byte == 0) {
        return "all zeros, as an interrupted download leaves".into();
    }
    if let Some((_, name)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return (*name).into();
    }
    if head.iter().all(|&byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e)) {
        return "plain text".into();
    }
    let start: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("something unknown, beginning with the bytes {}", start.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pickle_and_a_safetensors_file_may_begin_alike() {
        // A header of 0x0280 bytes starts with the bytes of a protocol 2 pickle.
        let mut head = 0x0280u64.to_le_bytes().to_vec();
        head.push(b'{');
        assert_eq!(recognise(&head), Ok(Format::Safetensors));
        assert_eq!(recognise(b"\x80\x02}q\x00U\x05modelq"), Ok(Format::Pickle));
    }

    #[test]
    fn old_checkpoints() {
        let mut tar = [0; HEAD];
        tar[TAR_MAGIC].copy_from_slice(b"ustar");
        assert_eq!(recognise(&tar), Ok(Format::TorchTar));
        let legacy = [&b"\x80\x02\x8a\x0a"[..], &LEGACY_MAGIC, b"."].concat();
        assert_eq!(recognise(&legacy), Ok(Format::TorchLegacy));
        assert_eq!(recognise(b"L119547037146038801333356L\n."), Ok(Format::TorchLegacy));
        assert_eq!(recognise(b"(dp0\nS'model'\n"), Ok(Format::Pickle));
    }

    #[test]
    fn other_files_are_called_by_name() {
        for (head, name) in [
            (&b""[..], "empty"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"version https://git-lfs.github.com/spec/v1", "LFS"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"hello there", "plain text"),
            (b"\x01\x02\x03\xff", "01 02 03 ff"),
            (&[0; 100], "zeros"),
        ] {
            let message = recognise(head).unwrap_err();
            assert!(message.contains(name), "{message:?} should mention {name:?}");
        }
    }
}
