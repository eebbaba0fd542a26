//! What files are, by their names.

use super::{ARRAY, PICTURES};

/// What a file is, by its extension.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Picture,
    /// A picture too, but one that can hold any number of bands.
    Tiff,
    Array,
    Shard,
    Other,
}

impl Kind {
    pub(super) const ALL: [Kind; 5] =
        [Kind::Picture, Kind::Tiff, Kind::Array, Kind::Shard, Kind::Other];

    pub(super) fn of(name: &[u8]) -> Kind {
        let file = name.rsplit(|&b| b == b'/').next().unwrap_or(name);
        let Some(dot) = file.iter().rposition(|&b| b == b'.') else { return Kind::Other };
        let is = |extension: &str| file[dot + 1..].eq_ignore_ascii_case(extension.as_bytes());
        match () {
            () if is("tif") || is("tiff") => Kind::Tiff,
            () if PICTURES.iter().any(|extension| is(extension)) => Kind::Picture,
            () if is(ARRAY) => Kind::Array,
            () if ["tar", "tgz", "txz", "tzst"].into_iter().any(is) => Kind::Shard,
            () if ["gz", "xz", "zst"].into_iter().any(is)
                && file[..dot].to_ascii_lowercase().ends_with(b".tar") =>
            {
                Kind::Shard
            }
            () => Kind::Other,
        }
    }

    /// The kinds that hold images of so many channels, and those that stand in where there are
    /// none of the first: with the first, previews and masks of the second are left out.
    pub(super) fn choices(channels: usize) -> [&'static [Kind]; 2] {
        match channels {
            1 | 3 | 4 => [&[Kind::Picture, Kind::Tiff], &[Kind::Array]],
            _ => [&[Kind::Array], &[Kind::Tiff]],
        }
    }
}

/// Whether it is called as an image is: a picture or an array.
pub(crate) fn is_image_name(name: &str) -> bool {
    matches!(Kind::of(name.as_bytes()), Kind::Picture | Kind::Tiff | Kind::Array)
}

/// Whether the file's own name starts with a dot, as macOS's `._` companions do.
pub(super) fn is_hidden(name: &[u8]) -> bool {
    name.rsplit(|&b| b == b'/').next().is_some_and(|file| file.starts_with(b"."))
}
