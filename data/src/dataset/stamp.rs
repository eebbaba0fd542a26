//! What tells that a file or folder is as it was.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use super::wire::{Reader, Writer};

/// Times and size of a file or folder.
///
/// The time of the last change of its inode is among them, since the time of the last
/// modification can be set: two archives that hold parts of one folder leave it with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    /// In nanoseconds since 1970.
    modified: i64,
    /// In nanoseconds since 1970.
    changed: i64,
    /// In bytes.
    size: u64,
}

/// The time of change of a stamp that is an object's, whose version says all.
const OF_OBJECT: i64 = i64::MIN;

impl Stamp {
    /// Of an object of a store: a hash of its version, and its size.
    pub(super) fn of_version(hash: u64, size: u64) -> Self {
        Stamp { modified: hash as i64, changed: OF_OBJECT, size }
    }

    /// Whether it is an object's.
    pub(super) fn is_of_object(&self) -> bool {
        self.changed == OF_OBJECT
    }

    pub(super) fn of(metadata: &Metadata) -> Self {
        let time =
            |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Stamp {
            modified: time(metadata.mtime(), metadata.mtime_nsec()),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.size(),
        }
    }

    /// Whether it was older than `age` at `moment`. A younger one says nothing: a second change
    /// may come after the first without another time, since file systems' clocks tick slowly.
    pub(super) fn is_settled(&self, moment: SystemTime, age: Duration) -> bool {
        if self.is_of_object() {
            return true;
        }
        let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let oldest_young = since.saturating_sub(age).as_nanos();
        let latest = self.modified.max(self.changed);
        // Where there are no times, as on some mounts of object stores, they say nothing.
        u128::try_from(latest).is_ok_and(|latest| latest > 0 && latest < oldest_young)
    }

    pub(super) fn write(&self, to: &mut Writer) {
        to.number(self.modified as u64);
        to.number(self.changed as u64);
        to.number(self.size);
    }

    pub(super) fn read(from: &mut Reader) -> Option<Self> {
        Some(Stamp {
            modified: from.number()? as i64,
            changed: from.number()? as i64,
            size: from.number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_young_or_of_the_future_is_not_settled() {
        let second = 1_000_000_000;
        let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let is_settled = |modified, changed| {
            Stamp { modified, changed, size: 0 }.is_settled(moment, Duration::from_secs(2))
        };
        assert!(is_settled(98 * second - 1, 5) && is_settled(5, 98 * second - 1));
        assert!(!is_settled(98 * second, 5) && !is_settled(5, 98 * second));
        assert!(!is_settled(200 * second, 5));
        assert!(!is_settled(0, 0) && !is_settled(-3, -3));
    }
}
