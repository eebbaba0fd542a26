//! A shard in the making.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use ring::digest::{Context, SHA256};

use super::hex;

/// Bytes of a block of a tar archive.
pub(super) const BLOCK: u64 = 512;
/// Two empty blocks end an archive.
const END: u64 = 2 * BLOCK;
/// Longest name that fits a header; longer ones take blocks of their own.
const SHORT_NAME: usize = 100;
/// All members' time, the start of 2000: unpacking programs complain of 1970.
const MODIFIED: u64 = 946_684_800;

/// A file of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub name: String,
    pub bytes: Vec<u8>,
}

impl Member {
    /// What it takes of a shard.
    fn length(&self) -> u64 {
        let blocks = |bytes: usize| (bytes as u64).div_ceil(BLOCK) * BLOCK;
        let long = match self.name.len() > SHORT_NAME {
            // With the zero at its end.
            true => BLOCK + blocks(self.name.len() + 1),
            false => 0,
        };
        long + BLOCK + blocks(self.bytes.len())
    }
}

/// Where a member lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lies {
    pub name: String,
    pub offset: u64,
    pub size: u64,
}

/// A tar archive that is being written.
pub(super) struct Tarball {
    builder: tar::Builder<Hashing>,
    pub members: Vec<Lies>,
}

impl Tarball {
    /// An empty one, which `file` is to hold.
    pub fn new(file: File) -> Self {
        let hashing = Hashing {
            file: BufWriter::with_capacity(1 << 20, file),
            hash: Context::new(&SHA256),
            written: 0,
        };
        Tarball { builder: tar::Builder::new(hashing), members: Vec::new() }
    }

    /// Bytes that it would have with these members, too, its end included.
    pub fn length_with(&self, members: &[Member]) -> u64 {
        self.builder.get_ref().written + members.iter().map(Member::length).sum::<u64>() + END
    }

    /// Adds a member.
    pub fn add(&mut self, member: &Member) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        let size = member.bytes.len() as u64;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(MODIFIED);
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(tar::EntryType::Regular);
        self.builder.append_data(&mut header, &member.name, member.bytes.as_slice())?;
        let end = self.builder.get_ref().written;
        let offset = end - size.div_ceil(BLOCK) * BLOCK;
        self.members.push(Lies { name: member.name.clone(), offset, size });
        Ok(())
    }

    /// Ends it: members, bytes and SHA-256.
    pub fn finish(self) -> io::Result<(Vec<Lies>, u64, String)> {
        let Hashing { mut file, hash, written } = self.builder.into_inner()?;
        file.flush()?;
        Ok((self.members, written, hex(hash.finish().as_ref())))
    }
}

/// Counts and hashes what goes by.
struct Hashing {
    file: BufWriter<File>,
    hash: Context,
    written: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn members_lie_where_it_says_and_take_what_it_says() {
        let mut file = tempfile::tempfile().unwrap();
        let mut tarball = Tarball::new(file.try_clone().unwrap());
        let lengths = [0usize, 1, 511, 512, 513];
        for (number, length) in lengths.into_iter().enumerate() {
            for name in [
                format!("{number}.jpg"),
                format!("{}{number}.png", "n".repeat(95)),
                format!("{}/{number}.cls", "long".repeat(60)),
            ] {
                let member = Member { name, bytes: vec![number as u8; length] };
                let expected = tarball.length_with(std::slice::from_ref(&member));
                tarball.add(&member).unwrap();
                assert_eq!(tarball.length_with(&[]), expected);
            }
        }
        let expected = tarball.length_with(&[]);
        let (members, bytes, sha256) = tarball.finish().unwrap();
        let mut whole = Vec::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut whole).unwrap();
        assert_eq!((bytes, whole.len() as u64), (expected, expected));
        assert_eq!(sha256, super::super::sha256(&whole));
        let mut archive = tar::Archive::new(whole.as_slice());
        let read: Vec<Lies> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.path().unwrap().to_str().unwrap().to_owned();
                Lies { name, offset: entry.raw_file_position(), size: entry.size() }
            })
            .collect();
        assert_eq!(read, members);
    }
}
