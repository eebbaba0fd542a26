//! The mask of one instance.

/// A mask in the coordinates of its image.
#[derive(Debug, Clone, PartialEq)]
pub enum InstanceMask {
    /// The union of polygons, each x0, y0, x1, y1, … in absolute pixels (COCO).
    Polygons(Vec<Vec<f64>>),
    /// Pixel by pixel.
    Bitmap(Bitmap),
}

/// A mask of a whole image, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 inside, 0 outside; `height · width` of them.
    pub pixels: Vec<u8>,
}
