//! JPEG files as libjpeg and so Pillow reads them.
//!
//! Nearly all are decoded by `zune-jpeg`. libjpeg itself, slow as it is without its assembly,
//! reads the few that both take differently: what its rules on markers call other colours, what
//! has no end marker, and arithmetic coding.

use std::io::{self, BufRead, Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageResult, RgbImage};
use mozjpeg::{ColorSpace, Decompress};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace as Stored;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::tiff::cmyk_to_rgb;
use super::{Problem, check_size, exif};

/// What the markers of a JPEG file say.
#[derive(Debug)]
pub(super) struct Markers {
    /// What the components are by libjpeg's rules.
    pub colours: Option<Stored>,
    pub orientation: Orientation,
    /// Width and height that the frame's header claims.
    pub size: Option<(u64, u64)>,
    /// Whether an end-of-image marker follows the first scan.
    pub has_end: bool,
}

const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];

/// Whether an end-of-image marker follows the first scan.
///
/// `zune-jpeg` fills what is missing with grey and reports nothing, so a half-downloaded
/// file would be trained on. Inside a scan the byte FF is always followed by 00 or a restart
/// marker, so FF D9 behind the first scan header can only be the end; before it, it may be
/// that of an embedded thumbnail.
pub(super) fn has_end(bytes: &[u8]) -> bool {
    Markers::read(bytes).has_end
}

const START_OF_SCAN: u8 = 0xda;

/// Calls `found` with the marker, content and place of each segment up to the first scan's header.
fn for_each_segment<'a>(bytes: &'a [u8], mut found: impl FnMut(u8, &'a [u8], usize)) {
    let mut at = 2;
    while let Some(&[first, marker, high, low]) = bytes.get(at..at + 4) {
        match (first, marker) {
            // Fill bytes may stand before a marker.
            (0xff, 0xff) => at += 1,
            // Markers without a length: TEM and the restart markers.
            (0xff, 0x01 | 0xd0..=0xd7) => at += 2,
            (0xff, marker) => {
                let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
                found(marker, bytes.get(at + 4..end).unwrap_or_default(), at);
                if marker == START_OF_SCAN {
                    return;
                }
                at = end;
            }
            // Junk between segments is skipped by decoders as well.
            _ => at += 1,
        }
    }
}

impl Markers {
    /// Those up to the first scan.
    pub fn read(bytes: &[u8]) -> Markers {
        const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
        let (mut jfif, mut adobe, mut components) = (false, None, Vec::new());
        let (mut exif, mut xmp) = (Vec::new(), None);
        let (mut size, mut scan) = (None, None);
        for_each_segment(bytes, |marker, content, at| match marker {
            0xe0 if content.starts_with(b"JFIF\0") && content.len() >= 14 => jfif = true,
            0xee if content.starts_with(b"Adobe") => adobe = content.get(11).copied(),
            // Long EXIF data goes on in further segments.
            0xe1 if content.starts_with(b"Exif\0\0") => {
                let start = if exif.is_empty() { 0 } else { 6 };
                exif.extend_from_slice(&content[start..]);
            }
            0xe1 if content.starts_with(XMP) => xmp = Some(&content[XMP.len()..]),
            // The frame's header: precision, height, width and count before the components.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                let listed = content.get(6..).unwrap_or_default();
                components = listed.chunks_exact(3).map(|component| component[0]).collect();
                if let Some(&[_, rows, more_rows, columns, more_columns]) = content.first_chunk() {
                    let side = |high, low| u64::from(u16::from_be_bytes([high, low]));
                    size = Some((side(columns, more_columns), side(rows, more_rows)));
                }
            }
            START_OF_SCAN => scan = Some(at),
            _ => {}
        });
        let has_end = scan
            .is_some_and(|at: usize| bytes[at..].windows(2).rev().any(|pair| pair == END_OF_IMAGE));
        let exif = (!exif.is_empty()).then_some(&exif[..]);
        let orientation = exif::orientation(exif, xmp);
        let colours = colours(jfif, adobe, &components);
        Markers { colours, orientation, size, has_end }
    }
}

/// libjpeg's `default_decompress_parms`.
fn colours(jfif: bool, adobe: Option<u8>, components: &[u8]) -> Option<Stored> {
    Some(match (components, adobe) {
        ([_], _) => Stored::Luma,
        ([_, _, _], _) if jfif => Stored::YCbCr,
        ([_, _, _], Some(0)) | (b"RGB", None) => Stored::RGB,
        ([_, _, _], _) => Stored::YCbCr,
        ([_, _, _, _], Some(0) | None) => Stored::CMYK,
        ([_, _, _, _], _) => Stored::YCCK,
        _ => return None,
    })
}

/// A decoder that has read the header of `bytes`.
pub(super) fn decoder(bytes: &[u8]) -> Result<JpegDecoder<ZCursor<&[u8]>>, DecodeErrors> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers()?;
    Ok(decoder)
}

/// The picture as stored.
pub(super) fn decode(bytes: &[u8]) -> Result<DynamicImage, Problem> {
    let markers = Markers::read(bytes);
    match decoder(bytes) {
        Ok(decoder) if markers.has_end && decoder.input_colorspace() == markers.colours => {
            let (width, height) = decoder.dimensions().unwrap_or_default();
            check_size(width as u32, height as u32)?;
            by_zune(bytes).map_err(|problem| format!("damaged: {problem}"))
        }
        Ok(_) => by_libjpeg(bytes),
        Err(problem) => by_libjpeg(bytes).map_err(|_| describe(&problem)),
    }
}

fn describe(problem: &DecodeErrors) -> Problem {
    format!("damaged: {problem:?}")
}

/// By way of the `image` crate: the decoder is generic, and is so compiled there, with the
/// optimisation of a dependency in every profile.
fn by_zune(bytes: &[u8]) -> ImageResult<DynamicImage> {
    DynamicImage::from_decoder(image::codecs::jpeg::JpegDecoder::new(Cursor::new(bytes))?)
}

fn picture(
    width: usize,
    height: usize,
    grey: bool,
    samples: Vec<u8>,
) -> Result<DynamicImage, Problem> {
    let (width, height) = (width as u32, height as u32);
    let image = if grey {
        GrayImage::from_raw(width, height, samples).map(DynamicImage::ImageLuma8)
    } else {
        RgbImage::from_raw(width, height, samples).map(DynamicImage::ImageRgb8)
    };
    image.ok_or_else(|| "damaged: the image is incomplete".to_owned())
}

/// Reads as Pillow does, which takes a file without an end marker as long as all of its rows are
/// decoded before it ends.
fn by_libjpeg(bytes: &[u8]) -> Result<DynamicImage, Problem> {
    let read = || {
        let file = Decompress::new_reader(UpToEnd(bytes)).ok()?;
        let (width, height) = file.size();
        if let Err(problem) = check_size(width as u32, height as u32) {
            return Some(Err(problem));
        }
        let (colours, samples) = match file.color_space() {
            ColorSpace::JCS_GRAYSCALE => (ColorSpace::JCS_GRAYSCALE, 1),
            ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => (ColorSpace::JCS_CMYK, 4),
            _ => (ColorSpace::JCS_RGB, 3),
        };
        let mut file = file.to_colorspace(colours).ok()?;
        let mut all = vec![0; width * height * samples];
        for row in all.chunks_exact_mut(width * samples) {
            file.read_scanlines_into(row).ok()?;
        }
        if samples == 4 {
            // Stored inverted, as Adobe does and Pillow expects of all.
            let inks = all.as_chunks().0.iter();
            all =
                inks.flat_map(|pixel: &[u8; 4]| cmyk_to_rgb(pixel.map(|ink| 255 - ink))).collect();
        }
        Some(picture(width, height, samples == 1, all))
    };
    // libjpeg's errors come as panics that don't reach the hook.
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Some(image)) => image,
        Ok(None) => Err("damaged: libjpeg can't read it".to_owned()),
        Err(problem) => match problem.downcast_ref::<String>().map(String::as_str) {
            Some(text) if !text.contains("read") => Err(format!("damaged: {text}")),
            _ => Err("truncated: the JPEG stream ends before its last row".to_owned()),
        },
    }
}

/// A file that may be read up to its end and not beyond, where libjpeg would make one up.
struct UpToEnd<'a>(&'a [u8]);

impl Read for UpToEnd<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl BufRead for UpToEnd<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.0.is_empty() { Err(io::Error::other("truncated")) } else { Ok(self.0) }
    }

    fn consume(&mut self, count: usize) {
        self.0 = &self.0[count..];
    }
}
