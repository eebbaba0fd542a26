//! t
use backbone::PatchMask;
use image::RgbImage;
use std::path::Path;
use tch::Tensor;
/// t
pub struct Sheet;
impl Sheet {
    /// t
    pub fn new(_c: &str, _n: &engine::data::Normalize) -> Self {
        Sheet
    }
    /// t
    pub fn render(&self, _a: &Tensor, _b: &Tensor, _m: &PatchMask) -> anyhow::Result<RgbImage> {
        Ok(RgbImage::new(4, 4))
    }
}
/// t
pub fn png(image: &RgbImage) -> anyhow::Result<Vec<u8>> {
    let mut out = std::io::Cursor::new(Vec::new());
    image.write_to(&mut out, image::ImageFormat::Png)?;
    Ok(out.into_inner())
}
/// t
pub fn loss_curve(_p: &Path, _t: &str) -> anyhow::Result<Option<RgbImage>> {
    Ok(None)
}
