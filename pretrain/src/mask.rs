//! Which patches stay visible: drawn at random (paper, section 3.1), or chosen by hand.

use std::fmt;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, bail, ensure};
use backbone::{PatchMask, Result, Size};
use data::rng::Rng;
use data::{Image, Pixels};
use serde::Deserialize;
use tch::Device;

/// Stream of the draws of [`Masking::Random`].
const STREAM: u64 = 0x7265_636f;

/// Pixels below this luma, of 255, are dark.
const DARK: u8 = 128;

/// Visible patches out of `total`: `total · (1 − ratio)`, rounded half to even
/// as Python's `round`.
pub fn keep_count(total: usize, mask_ratio: f64) -> usize {
    (total as f64 * (1.0 - mask_ratio)).round_ties_even() as usize
}

/// A mask that leaves `keep` patches of every image visible, uniformly at
/// random: image i draws from `generators[i]`.
///
/// # Errors
/// `keep` is 0.
pub fn draw(
    generators: impl IntoIterator<Item = Rng>,
    (rows, cols): Size,
    keep: usize,
    device: Device,
) -> Result<Rc<PatchMask>> {
    let per_image = rows * cols;
    let mut visible = Vec::new();
    let mut batch = 0;
    for mut generator in generators {
        let mut chosen = generator.permutation(per_image as usize);
        chosen.truncate(keep);
        chosen.sort_unstable();
        visible.extend(chosen.into_iter().map(|patch| batch * per_image + patch as i64));
        batch += 1;
    }
    PatchMask::from_visible(batch, (rows, cols), &visible, device)
}

/// How the patches of images that are looked at are masked.
#[derive(Debug, Clone, PartialEq)]
pub enum Masking {
    /// Drawn for each image.
    Random {
        /// Share of patches that is masked.
        ratio: f64,
        /// Seed of the draws.
        seed: u64,
    },
    /// The same patches of all images.
    Given(VisiblePatches),
}

impl Masking {
    /// The mask of `batch` images of `grid` patches (rows, columns).
    ///
    /// # Errors
    /// A ratio that leaves no patch visible or none masked, or given patches of another grid.
    pub fn mask(&self, batch: i64, grid: Size, device: Device) -> anyhow::Result<Rc<PatchMask>> {
        match self {
            Self::Random { ratio, seed } => {
                let total = (grid.0 * grid.1) as usize;
                let keep = keep_count(total, *ratio);
                ensure!(
                    keep > 0 && keep < total,
                    "mask-ratio is {ratio}, but of {total} patches it would leave {keep} visible; \
                     at least one must be visible and one masked"
                );
                let generators = (0..batch as u64).map(|i| Rng::new(*seed, &[STREAM, i]));
                Ok(draw(generators, grid, keep, device)?)
            }
            Self::Given(patches) => {
                patches.check_grid(grid)?;
                Ok(patches.mask(batch, device)?)
            }
        }
    }
}

impl fmt::Display for Masking {
    /// As a caption has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random { ratio, seed } => write!(f, "mask ratio {ratio}, seed {seed}"),
            Self::Given(patches) => {
                let total = patches.flags.len();
                write!(f, "{} of {total} patches masked by hand", total - patches.visible_count())
            }
        }
    }
}

/// The visible patches of an image, chosen by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisiblePatches {
    grid: Size,
    /// Row by row, true where visible; neither all nor none.
    flags: Vec<bool>,
}

/// The JSON form of [`VisiblePatches`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaskFile {
    /// Rows and columns.
    patches: (usize, usize),
    /// A list for each row: 1 visible, 0 masked.
    visible: Vec<Vec<u64>>,
}

impl VisiblePatches {
    /// Patches of a grid of `(rows, columns)`, row by row, true where visible.
    ///
    /// # Errors
    /// Another number of flags, no patch visible, or none masked.
    pub fn new(grid: Size, flags: Vec<bool>) -> anyhow::Result<Self> {
        let (rows, cols) = grid;
        ensure!(
            flags.len() as i64 == rows * cols,
            "{} patches are given, but a grid of {rows}×{cols} has {}",
            flags.len(),
            rows * cols
        );
        let patches = Self { grid, flags };
        let (visible, total) = (patches.visible_count(), patches.flags.len());
        ensure!(
            visible > 0 && visible < total,
            "{visible} of {total} patches are visible, but at least one must be visible and one \
             masked"
        );
        Ok(patches)
    }

    /// Reads `{"patches": [rows, columns], "visible": [[0, 1, …], …]}`, a list for each row,
    /// 1 visible and 0 masked.
    ///
    /// # Errors
    /// Text that is not of this form, lists that do not fit the numbers of rows and columns, or
    /// those of [`VisiblePatches::new`].
    pub fn from_json(json: &[u8]) -> anyhow::Result<Self> {
        let file: MaskFile = serde_json::from_slice(json).context(
            "a mask in JSON is {\"patches\": [rows, columns], \"visible\": [[0, 1, …], …]}",
        )?;
        let (rows, cols) = file.patches;
        ensure!(
            file.visible.len() == rows,
            "visible has {} rows, but patches says {rows}",
            file.visible.len()
        );
        let mut flags = Vec::new();
        for (y, row) in file.visible.iter().enumerate() {
            ensure!(
                row.len() == cols,
                "visible[{y}] has {} columns, but patches says {cols}",
                row.len()
            );
            for (x, &value) in row.iter().enumerate() {
                match value {
                    0 | 1 => flags.push(value == 1),
                    _ => bail!(
                        "visible[{y}][{x}] is {value}, but it must be 1 (visible) or 0 (masked)"
                    ),
                }
            }
        }
        Self::new((rows as i64, cols as i64), flags)
    }

    /// Masks the patches of which more than half the pixels of `picture`, laid over the grid, are
    /// dark (luma below 128 of 255).
    ///
    /// # Errors
    /// A picture that is not 8-bit luma or has fewer pixels than patches along a side, or those of
    /// [`VisiblePatches::new`].
    pub fn from_picture(picture: &Image, grid: Size) -> anyhow::Result<Self> {
        let (height, width) = (picture.height(), picture.width());
        let (rows, cols) = (grid.0 as usize, grid.1 as usize);
        let (1, Pixels::U8(luma)) = (picture.channels(), picture.pixels()) else {
            bail!(
                "a mask must be JSON or a picture of 8-bit grey, and this is an array of numbers"
            );
        };
        ensure!(
            height >= rows && width >= cols,
            "the mask is {width}×{height} pixels, but {cols}×{rows} patches need at least one each"
        );
        let mut dark = vec![0usize; rows * cols];
        let mut pixels = vec![0usize; rows * cols];
        for (index, &value) in luma.iter().enumerate() {
            // The patch that the pixel's centre lies in.
            let (y, x) = (2 * (index / width) + 1, 2 * (index % width) + 1);
            let patch = y * rows / (2 * height) * cols + x * cols / (2 * width);
            pixels[patch] += 1;
            dark[patch] += usize::from(value < DARK);
        }
        let flags = dark.iter().zip(&pixels).map(|(dark, pixels)| 2 * dark <= *pixels).collect();
        Self::new(grid, flags)
    }

    /// Reads a JSON file, or a picture that is brought to `grid` (rows, columns).
    ///
    /// # Errors
    /// A file that cannot be read or is neither, another grid, or what the reader of its form
    /// refuses; the sentence begins with the path.
    pub fn read(path: &Path, grid: Size) -> anyhow::Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let named_json = path.extension().is_some_and(|name| name.eq_ignore_ascii_case("json"));
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        let read = || {
            if named_json || matches!(first, Some(b'{' | b'[')) {
                let patches = Self::from_json(&bytes)?;
                patches.check_grid(grid)?;
                return Ok(patches);
            }
            Self::from_picture(&data::decode(path, &bytes, 1)?, grid)
        };
        read().with_context(|| format!("the mask {} cannot be used", path.display()))
    }

    /// Rows and columns.
    pub fn grid(&self) -> Size {
        self.grid
    }

    /// Number of visible patches.
    pub fn visible_count(&self) -> usize {
        self.flags.iter().filter(|&&visible| visible).count()
    }

    /// The same patches of each of `batch` images.
    ///
    /// # Errors
    /// A batch that is not positive.
    pub fn mask(&self, batch: i64, device: Device) -> Result<Rc<PatchMask>> {
        let per_image = self.flags.len() as i64;
        let chosen = (0..).zip(&self.flags).filter(|(_, visible)| **visible);
        let chosen: Vec<i64> = chosen.map(|(patch, _)| patch).collect();
        let of_image = |image: i64| chosen.iter().map(move |patch| image * per_image + patch);
        let visible: Vec<i64> = (0..batch).flat_map(of_image).collect();
        PatchMask::from_visible(batch, self.grid, &visible, device)
    }

    fn check_grid(&self, grid: Size) -> anyhow::Result<()> {
        let ((rows, cols), own) = (grid, self.grid);
        ensure!(
            own == grid,
            "patches is [{}, {}], but images of this size have {rows}×{cols} patches",
            own.0,
            own.1
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"patches": [2, 3], "visible": [[1, 0, 0], [0, 1, 1]]}"#;

    fn refusal(json: &str) -> String {
        format!("{:#}", VisiblePatches::from_json(json.as_bytes()).unwrap_err())
    }

    #[test]
    fn json_is_read_row_by_row() {
        let patches = VisiblePatches::from_json(JSON.as_bytes()).unwrap();
        let flags = vec![true, false, false, false, true, true];
        assert_eq!(patches, VisiblePatches::new((2, 3), flags).unwrap());
        let mask = patches.mask(2, Device::Cpu).unwrap();
        let active = Vec::<bool>::try_from(mask.active((1, 1)).view([-1])).unwrap();
        assert_eq!(active, [patches.flags.clone(), patches.flags].concat());
    }

    #[test]
    fn json_of_another_form_is_refused_with_the_reason() {
        for (json, reason) in [
            ("[1, 0]", "{\"patches\": [rows, columns]"),
            (r#"{"patches": [2, 3]}"#, "missing field `visible`"),
            (r#"{"patches": [2], "visible": []}"#, "invalid length 1"),
            (r#"{"patches": [-1, 2], "visible": []}"#, "-1"),
            (r#"{"patches": [1, 2], "visible": [[0, 1]], "ratio": 1}"#, "unknown field `ratio`"),
            (
                r#"{"patches": [2, 2], "visible": [[0, 1]]}"#,
                "visible has 1 rows, but patches says 2",
            ),
            (r#"{"patches": [1, 2], "visible": [[0]]}"#, "visible[0] has 1 columns"),
            (r#"{"patches": [1, 2], "visible": [[0, 7]]}"#, "visible[0][1] is 7"),
            (r#"{"patches": [1, 2], "visible": [[1, 1]]}"#, "2 of 2 patches are visible"),
            (r#"{"patches": [1, 2], "visible": [[0, 0]]}"#, "0 of 2 patches are visible"),
            (r#"{"patches": [0, 0], "visible": []}"#, "0 of 0 patches are visible"),
        ] {
            let told = refusal(json);
            assert!(told.contains(reason), "{json}: {told}");
        }
    }

    /// A grey picture from rows of characters, `#` dark.
    fn picture(rows: &[&str]) -> Image {
        let luma = rows.iter().flat_map(|row| row.bytes());
        let luma = luma.map(|letter| if letter == b'#' { 100 } else { 140 }).collect();
        Image::new(rows[0].len(), rows.len(), 1, Pixels::U8(luma)).unwrap()
    }

    #[test]
    fn a_patch_is_masked_where_most_of_it_is_dark() {
        // Two rows of patches, three columns of 5 / 3 pixels: centres 0 and 1, 2, 3 and 4.
        let drawn = picture(&["##.#.", "#..##", ".####", ".##.."]);
        let patches = VisiblePatches::from_picture(&drawn, (2, 3)).unwrap();
        // Dark: 3 of 4, 0 of 2, 3 of 4; 2 of 4 (half), 2 of 2, 2 of 4.
        assert_eq!(patches.flags, [false, true, false, true, false, true]);

        let told = |rows: &[&str]| {
            VisiblePatches::from_picture(&picture(rows), (2, 3)).unwrap_err().to_string()
        };
        assert!(told(&["###", "###"]).contains("0 of 6 patches are visible"));
        assert!(told(&["##", ".."]).contains("2×2 pixels, but 3×2 patches"));
        assert!(told(&["...", "..."]).contains("6 of 6 patches are visible"));
    }

    #[test]
    fn a_given_mask_is_for_its_own_grid() {
        let masking = Masking::Given(VisiblePatches::from_json(JSON.as_bytes()).unwrap());
        assert_eq!(masking.to_string(), "3 of 6 patches masked by hand");
        assert_eq!(masking.mask(2, (2, 3), Device::Cpu).unwrap().visible_count(), 6);
        let told = masking.mask(2, (3, 2), Device::Cpu).unwrap_err().to_string();
        assert_eq!(told, "patches is [2, 3], but images of this size have 3×2 patches");
    }
}
