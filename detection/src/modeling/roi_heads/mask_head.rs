//! The mask of every region.
//! Reference: detectron2 `roi_heads/mask_head.py` (`MaskRCNNConvUpsampleHead`).

use backbone::{Init, Mode};
use tch::Tensor;
use tch::nn::Path;

use crate::modeling::config::MaskHeadConfig;
use crate::modeling::layers::{NormConv, in_full, normal};

/// 3×3 convolutions, a doubling of the resolution, and one output a class.
#[derive(Debug)]
pub(super) struct MaskHead {
    convs: Vec<NormConv>,
    /// `[C, C, 2, 2]`.
    deconv_weight: Tensor,
    /// `[C]`.
    deconv_bias: Tensor,
    /// `[outputs, C, 1, 1]`.
    predictor_weight: Tensor,
    /// `[outputs]`.
    predictor_bias: Tensor,
    config: MaskHeadConfig,
}

impl MaskHead {
    /// `mask_fcn1`, …, `deconv` and `predictor` under `path`.
    pub(super) fn new(path: &Path, channels: i64, outputs: i64, config: &MaskHeadConfig) -> Self {
        let ends = (channels, config.channels);
        let convs = NormConv::chain(path, ("mask_fcn", config.convs), ends, config.norm);
        let from = if config.convs == 0 { channels } else { config.channels };
        let (deconv, predictor) = (path / "deconv", path / "predictor");
        let zero = Init::Constant(0.0);
        let width = config.channels;
        Self {
            convs,
            deconv_weight: Init::KaimingFanOut.parameter(&deconv, "weight", &[from, width, 2, 2]),
            deconv_bias: zero.parameter(&deconv, "bias", &[width]),
            predictor_weight: normal(0.001).parameter(
                &predictor,
                "weight",
                &[outputs, width, 1, 1],
            ),
            predictor_bias: zero.parameter(&predictor, "bias", &[outputs]),
            config: config.clone(),
        }
    }

    pub(super) fn config(&self) -> &MaskHeadConfig {
        &self.config
    }

    /// Logits `[R, 1, 2·size, 2·size]` of regions `[R, C, size, size]`, each
    /// for its own output among `columns` (`[R]`): the masks of the other
    /// classes are never asked for.
    ///
    /// The transposed convolution is one matrix product, since its kernel
    /// equals its stride; its four results of a position stay together until
    /// the one output is known.
    pub(super) fn forward(&self, regions: &Tensor, columns: &Tensor, mode: &Mode) -> Tensor {
        let hidden = NormConv::forward_chain(&self.convs, regions, mode);
        let size = hidden.size();
        let (count, height, width) = (size[0], size[2], size[3]);
        let channels = self.deconv_bias.size()[0];

        let deconv = mode.cast(&self.deconv_weight).permute([2, 3, 1, 0]).flatten(0, 2);
        let bias = mode.cast(&self.deconv_bias).repeat([4]);
        let rows = mode.cast(&hidden.permute([0, 2, 3, 1])).linear(&deconv, Some(&bias)).relu();
        let rows = rows.view([count, height * width * 4, channels]);

        let weight = mode.cast(&self.predictor_weight).flatten(1, 3).index_select(0, columns);
        let bias = mode.cast(&self.predictor_bias).index_select(0, columns);
        let logits = rows.bmm(&weight.unsqueeze(2)) + bias.view([-1, 1, 1]);
        let cells = logits.view([count, height, width, 2, 2]).permute([0, 1, 3, 2, 4]);
        in_full(cells.reshape([count, 1, 2 * height, 2 * width]))
    }
}
