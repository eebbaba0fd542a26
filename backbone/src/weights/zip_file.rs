//! Zip files as PyTorch writes them.

use std::io::{Read, Seek};

use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};
use zip::result::ZipResult;

/// Opens a zip file that starts where it starts. Left to find out, the zip crate takes the
/// directory's second entry for its first in PyTorch's files when the first takes as many bytes
/// as the records of 64 bits at the end: when its name has 30 characters, as
/// `resnet18/data/weights/weight_0` does.
///
/// # Errors
/// It is no zip file, or damaged.
pub(crate) fn open_zip<R: Read + Seek>(reader: R) -> ZipResult<ZipArchive<R>> {
    ZipArchive::with_config(Config { archive_offset: ArchiveOffset::Known(0) }, reader)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// A zip file with the records at its end that PyTorch's writer adds to every one.
    fn with_64_bit_records(names: &[&str]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for name in names {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(b"content").unwrap();
        }
        let mut bytes = zip.finish().unwrap().into_inner();
        let end = bytes.split_off(bytes.len() - 22);
        let field = |at: usize| u32::from_le_bytes(end[at..at + 4].try_into().unwrap());
        let (size, start) = (u64::from(field(12)), u64::from(field(16)));
        let (place, count) = (bytes.len() as u64, names.len() as u64);
        bytes.extend(b"PK\x06\x06");
        bytes.extend(44u64.to_le_bytes());
        bytes.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for number in [count, count, size, start] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(b"PK\x06\x07\0\0\0\0");
        bytes.extend(place.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(end);
        bytes
    }

    #[test]
    fn names_of_every_length_are_found() {
        for length in 1..60 {
            let first = "n".repeat(length);
            let bytes = with_64_bit_records(&[&first, "second", "third"]);
            let zip = open_zip(Cursor::new(bytes)).unwrap_or_else(|e| panic!("{length}: {e}"));
            assert_eq!((zip.len(), zip.offset()), (3, 0), "{length}");
            assert!(zip.index_for_name(&first).is_some(), "{length}");
        }
    }
}
