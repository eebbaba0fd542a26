//! How large a picture is, before memory is taken for it.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, ImageReader};

use super::{Problem, jpeg, npy, png, readable_format, tiff};
use crate::{Error, Result};

/// Width and height that the header of a picture claims, as it is stored: not turned upright.
///
/// # Errors
/// [`Error::Image`] with `path` for content that is of no kind that [`decode`](super::decode)
/// reads, or whose header is damaged.
pub fn claimed_size(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(u64, u64)> {
    read(bytes).map_err(|problem| Error::image(path, problem))
}

fn read(bytes: &[u8]) -> std::result::Result<(u64, u64), Problem> {
    if npy::is_npy(bytes) {
        return npy::size(bytes);
    }
    if let Some(directory) = tiff::Directory::first(bytes) {
        return directory?.size().ok_or_else(|| "damaged: the TIFF tells no size".to_owned());
    }
    let of_header = |bytes: &[u8], format| {
        let size = ImageReader::with_format(Cursor::new(bytes), format).into_dimensions();
        let (width, height) = size.map_err(|error| error.to_string())?;
        Ok((width.into(), height.into()))
    };
    match readable_format(bytes)? {
        // Of more kinds than the `image` crate knows.
        ImageFormat::Jpeg => jpeg::Markers::read(bytes)
            .size
            .ok_or_else(|| "truncated: the JPEG ends before its frame".to_owned()),
        format @ ImageFormat::Png => of_header(bytes, format)
            .or_else(|problem| of_header(&png::repaired(bytes), format).map_err(|_| problem)),
        format => of_header(bytes, format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_alone_tells() {
        let picture = image::RgbImage::new(40, 9);
        for (format, kept) in [
            (ImageFormat::Png, 45),
            (ImageFormat::Jpeg, 400),
            (ImageFormat::WebP, 40),
            (ImageFormat::Bmp, 60),
        ] {
            let mut file = Cursor::new(Vec::new());
            picture.write_to(&mut file, format).unwrap();
            // Nearly all that follows the header is gone.
            let start = &file.get_ref()[..kept];
            assert_eq!(claimed_size("a", start).unwrap(), (40, 9), "{format:?}");
        }

        let mut tiff = b"II*\0\x08\0\0\0\x02\0".to_vec();
        for (tag, value) in [(256u16, 20_000u32), (257, 10_000)] {
            tiff.extend(tag.to_le_bytes());
            tiff.extend([4, 0, 1, 0, 0, 0]);
            tiff.extend(value.to_le_bytes());
        }
        tiff.extend([0; 4]);
        assert_eq!(claimed_size("a.tif", &tiff).unwrap(), (20_000, 10_000));

        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 5, 7), }\n";
        let mut npy = b"\x93NUMPY\x01\0".to_vec();
        npy.extend((header.len() as u16).to_le_bytes());
        npy.extend(header.as_bytes());
        assert_eq!(claimed_size("a.npy", &npy).unwrap(), (5, 3));
    }

    #[test]
    fn what_is_no_picture_is_refused_by_name() {
        let refused = |bytes: &[u8]| claimed_size("notes.jpg", bytes).unwrap_err().to_string();
        assert_eq!(
            refused(b"to do: buy milk"),
            "notes.jpg: not a JPEG, PNG, WebP, BMP, TIFF or .npy file"
        );
        assert_eq!(refused(b""), "notes.jpg: the file is empty");
        assert_eq!(
            refused(b"\xff\xd8\xff\xe0\0\x04ab"),
            "notes.jpg: truncated: the JPEG ends before its frame"
        );
    }
}
