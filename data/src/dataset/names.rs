//! Many names in one piece of memory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::wire::{Reader, Writer};

/// Names by number.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Names {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Names {
    pub(super) fn push(&mut self, name: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn get(&self, index: usize) -> &Path {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Path::new(OsStr::from_bytes(&self.bytes[start..self.ends[index]]))
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Path> {
        (0..self.len()).map(|index| self.get(index))
    }

    pub(super) fn write(&self, to: &mut Writer) {
        to.count(self.len());
        self.iter().for_each(|name| to.text(name.as_os_str().as_bytes()));
    }

    pub(super) fn read(from: &mut Reader) -> Option<Self> {
        let mut names = Names::default();
        for _ in 0..from.count()? {
            names.push(from.text()?);
        }
        Some(names)
    }
}
