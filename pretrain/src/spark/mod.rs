//! The SparK model around any [`Backbone`].

mod decoder;
mod densify;
mod loss;

use std::fmt;
use std::rc::Rc;

use backbone::{Backbone, Error, FeatureMap, Mode, PatchMask, Result, Size};
use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;

pub use decoder::LightDecoder;
use densify::Densify;
use loss::packed_loss;
pub use loss::{denormalise, masked_patch_loss, patch_errors, restored};

/// Where the encoder's parameters lie in a SparK checkpoint.
pub const ENCODER_PREFIX: &str = "sparse_encoder.sp_cnn";

/// How the encoder runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Execution {
    /// On the visible patches alone.
    Packed,
    /// On the whole grid, masked after every layer: the official code's way. More
    /// arithmetic in fewer operators, which a GPU may do in less time.
    #[serde(rename = "masked")]
    MaskedDense,
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Packed => "packed",
            Self::MaskedDense => "masked",
        })
    }
}

/// Encoder, densification and decoder. Parameters carry the official
/// checkpoint's names.
#[derive(Debug)]
pub struct Spark {
    encoder: Box<dyn Backbone>,
    densify: Densify,
    decoder: LightDecoder,
}

/// What one pass gives.
#[derive(Debug)]
pub struct SparkOutput {
    /// The encoder's pyramid, finest first.
    pub features: Vec<FeatureMap>,
    /// The decoder's output `[N, C, H, W]`: in every patch, the prediction of
    /// its pixels normalised by the patch's own mean and deviation.
    pub prediction: Tensor,
    /// Mean squared error over masked patches, a scalar.
    pub loss: Tensor,
}

impl Spark {
    /// A model around the encoder that `build_encoder` makes under the path it
    /// is given; `decoder_width` is the decoder's width at the coarsest level
    /// (official: 768).
    ///
    /// # Errors
    /// The encoder cannot be built, its strides are not ascending powers of
    /// two, or the width cannot be halved as often as the decoder needs.
    pub fn new(
        path: &Path,
        decoder_width: i64,
        build_encoder: impl FnOnce(&Path) -> Result<Box<dyn Backbone>>,
    ) -> Result<Self> {
        let encoder = build_encoder(&(path / "sparse_encoder" / "sp_cnn"))?;
        let strides: Vec<i64> = encoder.stages().iter().map(|stage| stage.stride).collect();
        let powers = strides.iter().all(|&stride| stride > 0 && stride.count_ones() == 1);
        if strides.is_empty() || !powers || !strides.windows(2).all(|pair| pair[0] < pair[1]) {
            let rule = "the decoder doubles its resolution at every level, so an encoder needs \
                        strides that are ascending powers of two";
            return Err(Error::invalid("the encoder's strides", format!("{strides:?}"), rule));
        }
        let decoder = LightDecoder::new(
            &(path / "dense_decoder"),
            decoder_width,
            encoder.total_stride(),
            encoder.in_chans(),
        )?;
        let densify = Densify::new(path, encoder.as_ref(), &decoder);
        Ok(Self { encoder, densify, decoder })
    }

    /// The encoder.
    pub fn encoder(&self) -> &dyn Backbone {
        self.encoder.as_ref()
    }

    /// Patches (rows, columns) of an image of this size.
    ///
    /// # Errors
    /// Sides that are not positive multiples of the total stride.
    pub fn patch_grid(&self, size: Size) -> Result<Size> {
        patch_grid(self.encoder(), size)
    }

    /// Encodes the visible patches of `images` `[N, C, H, W]`, predicts every
    /// patch, and compares the masked ones.
    ///
    /// # Errors
    /// The images fit neither the encoder nor the mask.
    pub fn forward(
        &self,
        images: &Tensor,
        mask: &Rc<PatchMask>,
        mode: &Mode,
        execution: Execution,
    ) -> Result<SparkOutput> {
        let features = self.encode(images, mask, mode, execution)?;
        let levels = self.densify.forward(&features, mode);
        let prediction = self.decoder.forward(&levels, mode);
        let loss = masked_patch_loss(images, &prediction, mask);
        Ok(SparkOutput { features, prediction, loss })
    }

    /// The loss alone: as [`Spark::forward`] gives it, without a prediction of
    /// visible patches, which nothing would look at.
    ///
    /// # Errors
    /// As [`Spark::forward`].
    pub fn loss(
        &self,
        images: &Tensor,
        mask: &Rc<PatchMask>,
        mode: &Mode,
        execution: Execution,
    ) -> Result<Tensor> {
        let features = self.encode(images, mask, mode, execution)?;
        let levels = self.densify.forward(&features, mode);
        let prediction = self.decoder.forward_masked(&levels, mask, mode);
        Ok(packed_loss(&mask.pack_masked(images), &prediction))
    }

    /// The encoder's pyramid, finest first.
    fn encode(
        &self,
        images: &Tensor,
        mask: &Rc<PatchMask>,
        mode: &Mode,
        execution: Execution,
    ) -> Result<Vec<FeatureMap>> {
        let visible = match execution {
            Execution::Packed => FeatureMap::patches(images, mask)?,
            Execution::MaskedDense => FeatureMap::masked(images, mask)?,
        };
        self.encoder.forward(&visible, mode)
    }
}

/// Patches (rows, columns) that an image of this size is masked by for `encoder`.
///
/// # Errors
/// Sides that are not positive multiples of the total stride.
pub fn patch_grid(encoder: &dyn Backbone, (height, width): Size) -> Result<Size> {
    let stride = encoder.total_stride();
    if height <= 0 || width <= 0 || height % stride != 0 || width % stride != 0 {
        let rule = format!("its sides must be positive multiples of the total stride {stride}");
        return Err(Error::invalid("input size", format!("{height}×{width}"), rule));
    }
    Ok((height / stride, width / stride))
}
