//! Boxes as shifts and scalings of other boxes: what box regression learns.
//!
//! "Rich feature hierarchies" (Girshick et al. 2014), appendix C; detectron2
//! `modeling/box_regression.py`, torchvision `models/detection/_utils.py`.

use tch::{Kind, Tensor};

/// Turns pairs of boxes into regression targets, and predictions into boxes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoxCoder {
    /// Factors of dx, dy, dw, dh: about the inverse of their spread, so that
    /// targets have variance one. (10, 10, 5, 5) for box heads, ones for RPN.
    pub weights: [f64; 4],
    /// Largest dw and dh that are decoded.
    pub clip: f64,
}

impl BoxCoder {
    /// A box grows from the smallest stride's 16 pixels to 1000 at most in one
    /// step; keeps `exp` finite in the first iterations.
    pub const CLIP: f64 = 4.135_166_556_742_356; // ln(1000 / 16)

    /// A coder with the usual [`BoxCoder::CLIP`].
    pub fn new(weights: [f64; 4]) -> Self {
        Self { weights, clip: Self::CLIP }
    }

    /// What moves each of `sources` onto its `targets` (both `[N, 4]`): `[N, 4]`
    /// of (dx, dy, dw, dh). Not finite where a source has no width or height.
    pub fn encode(&self, sources: &Tensor, targets: &Tensor) -> Tensor {
        let [source_x, source_y, source_w, source_h] = centre_and_size(sources);
        let [target_x, target_y, target_w, target_h] = centre_and_size(targets);
        let [wx, wy, ww, wh] = self.weights;
        let dx = (target_x - source_x) * wx / &source_w;
        let dy = (target_y - source_y) * wy / &source_h;
        let dw = (target_w / source_w).log() * ww;
        let dh = (target_h / source_h).log() * wh;
        Tensor::stack(&[dx, dy, dw, dh], 1)
    }

    /// `boxes` (`[N, 4]`) moved by `deltas` (`[N, K · 4]`, one box a class):
    /// `[N, K · 4]`. Half-precision deltas are decoded in float32: their 11 bits
    /// don't tell the pixels of a large image apart.
    pub fn decode(&self, deltas: &Tensor, boxes: &Tensor) -> Tensor {
        let deltas = match deltas.kind() {
            Kind::Half | Kind::BFloat16 => deltas.to_kind(Kind::Float),
            _ => deltas.shallow_clone(),
        };
        let [x, y, w, h] =
            centre_and_size(&boxes.to_kind(deltas.kind())).map(|component| component.unsqueeze(1));
        let deltas = deltas.view([deltas.size()[0], deltas.size()[1] / 4, 4]);
        let [dx, dy, dw, dh] =
            [0, 1, 2, 3].map(|at| deltas.select(2, at as i64) / self.weights[at]);
        let x = dx * &w + x;
        let y = dy * &h + y;
        let half_w = dw.clamp_max(self.clip).exp() * w * 0.5;
        let half_h = dh.clamp_max(self.clip).exp() * h * 0.5;
        Tensor::stack(&[&x - &half_w, &y - &half_h, x + half_w, y + half_h], 2).flatten(1, 2)
    }
}

/// Centre x and y, width and height, each `[N]`.
fn centre_and_size(boxes: &Tensor) -> [Tensor; 4] {
    let [x1, y1, x2, y2] = [0, 1, 2, 3].map(|at| boxes.select(1, at));
    let (width, height) = (x2 - &x1, y2 - &y1);
    [x1 + &width * 0.5, y1 + &height * 0.5, width, height]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(rows: &[[f64; 4]]) -> Tensor {
        Tensor::from_slice(&rows.concat()).view([-1, 4])
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.flatten(0, -1).try_into().unwrap()
    }

    #[test]
    fn encodes_by_hand() {
        let coder = BoxCoder::new([10.0, 10.0, 5.0, 5.0]);
        // Centre (5, 10) of 10×20 to centre (8, 10) of 20×20.
        let deltas =
            coder.encode(&boxes(&[[0.0, 0.0, 10.0, 20.0]]), &boxes(&[[-2.0, 0.0, 18.0, 20.0]]));
        assert_eq!(values(&deltas), [3.0, 0.0, 5.0 * 2f64.ln(), 0.0]);
    }

    #[test]
    fn clip_is_the_log_of_its_ratio() {
        assert_eq!(BoxCoder::CLIP, (1000f64 / 16.0).ln());
        let coder = BoxCoder::new([1.0; 4]);
        let deltas = Tensor::from_slice(&[0.0, 0.0, 100.0, 100.0]).view([1, 4]);
        let decoded = values(&coder.decode(&deltas, &boxes(&[[-8.0, -8.0, 8.0, 8.0]])));
        // 16 pixels become 1000, and no more.
        let exact = [-500.0, -500.0, 500.0, 500.0];
        // A few roundings of exp and of products of hundreds.
        assert!(decoded.iter().zip(exact).all(|(a, b)| (a - b).abs() < 1e-9), "{decoded:?}");
    }

    #[test]
    fn nothing_decodes_to_nothing() {
        let empty = |columns: i64| Tensor::zeros([0, columns], (Kind::Float, tch::Device::Cpu));
        let decoded = BoxCoder::new([1.0; 4]).decode(&empty(320), &empty(4));
        assert_eq!(decoded.size(), [0, 320]);
    }
}
