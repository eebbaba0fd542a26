//! Affine maps of images, with the arithmetic of Pillow's `transform` and its bicubic filter,
//! which torchvision and timm call.

use super::color::Rgb;

/// From a pixel of the output to a place in the input, both with pixel centres at halves:
/// x' = a·x + b·y + c, y' = d·x + e·y + f.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Affine {
    pub x: [f64; 3],
    pub y: [f64; 3],
}

impl Affine {
    pub const IDENTITY: Affine = Affine { x: [1.0, 0.0, 0.0], y: [0.0, 1.0, 0.0] };

    /// A turn about the centre of an image of `width` × `height`, counter-clockwise.
    pub fn rotation(degrees: f64, width: usize, height: usize) -> Self {
        // Pillow rounds to 15 decimals, which makes quarter turns exact.
        let rounded = |value: f64| (value * 1e15).round_ties_even() / 1e15;
        let angle = -degrees.to_radians();
        let (sin, cos) = (rounded(angle.sin()), rounded(angle.cos()));
        let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
        Affine { x: [cos, sin, cos * -x + sin * -y + x], y: [-sin, cos, -sin * -x + cos * -y + y] }
    }

    fn at(&self, column: usize, row: usize) -> (f64, f64) {
        let (x, y) = (column as f64 + 0.5, row as f64 + 0.5);
        let place = |[a, b, c]: [f64; 3]| a * x + b * y + c;
        (place(self.x), place(self.y))
    }
}

/// The image as seen through `map`, in its own size; `fill` where that leads outside.
pub(super) fn transform(image: &Rgb, map: Affine, fill: [u8; 3]) -> Rgb {
    let (width, height) = (image.width, image.height);
    let mut samples = Vec::with_capacity(image.samples.len());
    for row in 0..height {
        for column in 0..width {
            let (x, y) = map.at(column, row);
            let inside = x >= 0.0 && x < width as f64 && y >= 0.0 && y < height as f64;
            samples.extend(if inside { bicubic(image, x, y) } else { fill });
        }
    }
    Rgb { width, height, samples }
}

/// The colour at a place inside the image, by cubic convolution over 4 × 4 pixels with a = −1;
/// beyond the edges the nearest pixel is taken.
fn bicubic(image: &Rgb, x: f64, y: f64) -> [u8; 3] {
    let (x, y) = (x - 0.5, y - 0.5);
    let (left, top) = (x.floor(), y.floor());
    let nearest = |first: f64, side: usize| -> [usize; 4] {
        std::array::from_fn(|n| (first as isize - 1 + n as isize).clamp(0, side as isize - 1) as _)
    };
    let columns = nearest(left, image.width).map(|column| 3 * column);
    let rows = nearest(top, image.height).map(|row| 3 * row * image.width);
    std::array::from_fn(|channel| {
        let sample = |row, column| f64::from(image.samples[row + column + channel]);
        let along = rows.map(|row| cubic(columns.map(|column| sample(row, column)), x - left));
        // The conversion cuts fractions off, and to 0..=255.
        cubic(along, y - top) as u8
    })
}

/// The value at `t` in 0..1 between the two in the middle.
fn cubic([before, from, to, after]: [f64; 4], t: f64) -> f64 {
    let first = to - before;
    let second = 2.0 * (before - from) + to - after;
    let third = from - before - to + after;
    from + t * (first + t * (second + t * third))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(width: usize, height: usize) -> Rgb {
        let samples = (0..width * height * 3).map(|n| n as u8).collect();
        Rgb { width, height, samples }
    }

    #[test]
    fn whole_pixels_move_unchanged() {
        let image = numbered(5, 4);
        assert_eq!(transform(&image, Affine::IDENTITY, [9; 3]), image);
        let right = Affine { x: [1.0, 0.0, -2.0], ..Affine::IDENTITY };
        let moved = transform(&image, right, [9, 8, 7]);
        assert_eq!(moved.samples[..6], [9, 8, 7, 9, 8, 7]);
        assert_eq!(moved.samples[6..15], image.samples[..9]);
    }

    #[test]
    fn quarter_turns_are_exact() {
        let image = numbered(5, 5);
        let quarter = Affine::rotation(90.0, 5, 5);
        let turned = transform(&image, quarter, [9; 3]);
        // Counter-clockwise: the upper right corner goes to the upper left.
        assert_eq!(turned.samples[..3], image.samples[12..15]);
        let back = (0..3).fold(turned, |image, _| transform(&image, quarter, [9; 3]));
        assert_eq!(back, image);
    }
}
