//! Mixing the images of a batch and their targets: Mixup (Zhang et al., arXiv 1710.09412) and
//! CutMix (Yun et al., arXiv 1905.04899), as timm's `Mixup` in mode `batch`.

use tch::{Kind, Tensor};

use super::image::CropBox;
use crate::rng::{Rng, purpose};
use crate::{Error, Result};

/// How the parameters of a batch are drawn: Mixup or CutMix, one λ for all images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mixup {
    mixup_alpha: f64,
    cutmix_alpha: f64,
    switch_probability: f64,
}

impl Mixup {
    /// Mixup with λ from Beta(`mixup_alpha`, `mixup_alpha`), with `switch_probability` CutMix with
    /// one from Beta(`cutmix_alpha`, `cutmix_alpha`) instead. An alpha of 0 leaves its kind out;
    /// two, and nothing is mixed.
    ///
    /// # Errors
    /// [`Error::Invalid`] when an alpha is negative or not finite, or the probability outside
    /// 0..=1.
    pub fn new(mixup_alpha: f64, cutmix_alpha: f64, switch_probability: f64) -> Result<Self> {
        for (name, alpha) in [("mixup alpha", mixup_alpha), ("cutmix alpha", cutmix_alpha)] {
            if !(alpha >= 0.0 && alpha.is_finite()) {
                return Err(Error::invalid(name, alpha, "it must be a finite number, at least 0"));
            }
        }
        if !(0.0..=1.0).contains(&switch_probability) {
            let rule = "it must be in 0..=1";
            return Err(Error::invalid("mixup switch probability", switch_probability, rule));
        }
        Ok(Mixup { mixup_alpha, cutmix_alpha, switch_probability })
    }

    /// The parameters for images of `size` = (height, width) at `step` of the run with `seed`.
    pub fn at(&self, seed: u64, step: u64, size: (usize, usize)) -> MixParams {
        self.draw(size, &mut Rng::new(seed, &[purpose::MIX, step]))
    }

    /// The parameters for a batch of images of `size` = (height, width).
    pub fn draw(&self, size: (usize, usize), rng: &mut Rng) -> MixParams {
        let cuts = match (self.mixup_alpha > 0.0, self.cutmix_alpha > 0.0) {
            (true, true) => rng.uniform() < self.switch_probability,
            (false, false) => return MixParams::NONE,
            (_, cutmix) => cutmix,
        };
        if !cuts {
            return MixParams::mixup(rng.beta(self.mixup_alpha, self.mixup_alpha));
        }
        let lam = rng.beta(self.cutmix_alpha, self.cutmix_alpha);
        let centre = (rng.below(size.0), rng.below(size.1));
        MixParams::cutmix(lam, centre, size)
    }
}

/// How a batch is mixed with itself in reverse order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixParams {
    /// Weight of an image's own target, 0..=1; the rest is its partner's.
    pub lam: f64,
    /// CutMix: the part that is the partner's. None: pixels are weighed as targets are.
    pub area: Option<CropBox>,
}

impl MixParams {
    /// Everything as it is.
    pub const NONE: MixParams = MixParams { lam: 1.0, area: None };

    /// Mixup with weight `lam`.
    pub fn mixup(lam: f64) -> Self {
        MixParams { lam, area: None }
    }

    /// CutMix of a box with a share of 1 − `lam` of each image of `size`, both (height, width),
    /// around `centre` = (row, column). It is cut off at the image's edges, and the weight is the
    /// share of what remains outside.
    pub fn cutmix(lam: f64, centre: (usize, usize), size: (usize, usize)) -> Self {
        let ratio = (1.0 - lam).sqrt();
        let span = |centre: usize, side: usize| {
            let cut = (side as f64 * ratio) as usize;
            (centre.saturating_sub(cut / 2), (centre + cut.div_ceil(2)).min(side))
        };
        let (top, bottom) = span(centre.0, size.0);
        let (left, right) = span(centre.1, size.1);
        let area = CropBox { top, left, height: bottom - top, width: right - left };
        let lam = 1.0 - (area.height * area.width) as f64 / (size.0 * size.1) as f64;
        MixParams { lam, area: Some(area) }
    }

    /// Mixes `images`, `[N, C, H, W]`, of classes `labels`. Returns the mixed images, and the
    /// targets as [`soft_targets`] has them, on the images' device.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `images` isn't of that shape and number or of floats, the box
    /// reaches outside them, and for what [`soft_targets`] refuses.
    pub fn apply(
        &self,
        images: &Tensor,
        labels: &[i64],
        num_classes: usize,
        smoothing: f64,
    ) -> Result<(Tensor, Tensor)> {
        let shape = images.size();
        let &[number, _, height, width] = &shape[..] else {
            let rule = "[N, C, H, W] is needed";
            return Err(Error::invalid("shape of the images", format!("{shape:?}"), rule));
        };
        if number != labels.len() as i64 {
            let rule = format!("there are {} labels", labels.len());
            return Err(Error::invalid("number of images", number, rule));
        }
        if !matches!(images.kind(), Kind::Double | Kind::Float | Kind::Half | Kind::BFloat16) {
            let rule = "floating point is needed to mix images";
            return Err(Error::invalid("kind of the images", format!("{:?}", images.kind()), rule));
        }
        if let Some(area) = self.area
            && (area.top + area.height > height as usize || area.left + area.width > width as usize)
        {
            let rule = format!("it must lie inside the images of {height}×{width}");
            return Err(Error::invalid("box", format!("{area:?}"), rule));
        }
        let targets = soft_targets(labels, num_classes, self.lam, smoothing)?;
        let kind = if images.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        Ok((self.images(images), targets.to_kind(kind).to_device(images.device())))
    }

    fn images(&self, images: &Tensor) -> Tensor {
        if self.lam == 1.0 {
            return images.shallow_clone();
        }
        let partners = images.flip([0]);
        let Some(area) = self.area else {
            return images * self.lam + partners * (1.0 - self.lam);
        };
        let part = |images: &Tensor| {
            images.narrow(2, area.top as i64, area.height as i64).narrow(
                3,
                area.left as i64,
                area.width as i64,
            )
        };
        let mixed = images.copy();
        part(&mixed).copy_(&part(&partners));
        mixed
    }
}

/// The targets of a batch of classes `labels`, each with weight `lam` and its partner's in the
/// reversed batch with the rest: float64 `[N, num_classes]`. Before, `smoothing` of each is spread
/// over all classes.
///
/// # Errors
/// [`Error::Invalid`] for no classes, a label that isn't below `num_classes`, or a `lam` or `smoothing` outside
/// 0..=1.
pub fn soft_targets(
    labels: &[i64],
    num_classes: usize,
    lam: f64,
    smoothing: f64,
) -> Result<Tensor> {
    for (name, value) in [("mixing weight", lam), ("label smoothing", smoothing)] {
        if !(0.0..=1.0).contains(&value) {
            return Err(Error::invalid(name, value, "it must be in 0..=1"));
        }
    }
    if num_classes == 0 {
        return Err(Error::invalid("number of classes", num_classes, "at least 1 is needed"));
    }
    let off = smoothing / num_classes as f64;
    let mut own = vec![off; labels.len() * num_classes];
    for (row, &label) in own.chunks_exact_mut(num_classes).zip(labels) {
        let place = usize::try_from(label).ok().and_then(|label| row.get_mut(label));
        let Some(place) = place else {
            let rule = format!("there are {num_classes} classes, 0 to {}", num_classes - 1);
            return Err(Error::invalid("label", label, rule));
        };
        *place = 1.0 - smoothing + off;
    }
    let own = Tensor::from_slice(&own).view([labels.len() as i64, num_classes as i64]);
    Ok(&own * lam + own.flip([0]) * (1.0 - lam))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_a_function_of_seed_and_step() {
        let mixup = Mixup::new(0.8, 1.0, 0.5).unwrap();
        let draws = |seed| (0..20).map(|step| mixup.at(seed, step, (32, 48))).collect::<Vec<_>>();
        assert_eq!(draws(3), draws(3));
        assert_ne!(draws(3), draws(4));
        assert!(draws(3).windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn both_kinds_come_with_their_distributions() {
        let mixup = Mixup::new(0.1, 1.0, 0.5).unwrap();
        let mut rng = Rng::new(8, &[]);
        let drawn: Vec<MixParams> = (0..20_000).map(|_| mixup.draw((64, 96), &mut rng)).collect();
        let cut: Vec<_> = drawn.iter().filter(|params| params.area.is_some()).collect();
        // Binomial(20000, 1/2) has standard deviation 71; five of them.
        assert!(cut.len().abs_diff(10_000) < 355, "{}", cut.len());
        for MixParams { lam, area } in &cut {
            let area = area.unwrap();
            assert!(area.top + area.height <= 64 && area.left + area.width <= 96);
            assert_eq!(*lam, 1.0 - (area.height * area.width) as f64 / 6144.0);
        }
        let squares: Vec<f64> =
            drawn.iter().filter(|p| p.area.is_none()).map(|p| (p.lam - 0.5).powi(2)).collect();
        let variance = squares.iter().sum::<f64>() / squares.len() as f64;
        // Beta(a, a) has variance 1/(4(2a + 1)) = 0.2083; squares lie in 0..=0.25, so five standard
        // errors are below 5 · 0.125/100.
        assert!((variance - 0.2083).abs() < 0.0063, "{variance}");
    }

    #[test]
    fn an_alpha_of_zero_leaves_its_kind_out() {
        let mut rng = Rng::new(0, &[]);
        let mut drawn =
            |mixup, cutmix| Mixup::new(mixup, cutmix, 0.5).unwrap().draw((8, 8), &mut rng);
        for _ in 0..50 {
            assert!(drawn(0.8, 0.0).area.is_none());
            assert!(drawn(0.0, 1.0).area.is_some());
            assert_eq!(drawn(0.0, 0.0), MixParams::NONE);
        }
    }

    #[test]
    fn a_box_at_the_corner_is_cut_and_the_weight_corrected() {
        let params = MixParams::cutmix(0.75, (0, 9), (10, 10));
        // Half of each side is 5: two rows above and columns 7 to 11, of which 2 and 1 are outside.
        let area = CropBox { top: 0, left: 7, height: 3, width: 3 };
        assert_eq!(params, MixParams { lam: 1.0 - 0.09, area: Some(area) });
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let message = |result: Result<(Tensor, Tensor)>| result.unwrap_err().to_string();
        let images = Tensor::zeros([2, 3, 4, 4], (Kind::Float, tch::Device::Cpu));
        let half = MixParams::mixup(0.5);
        assert!(half.apply(&images, &[0, 2], 3, 0.1).is_ok());
        assert!(
            message(half.apply(&images, &[0, 3], 3, 0.1)).contains("label is 3, but there are 3")
        );
        assert!(message(half.apply(&images, &[0, -1], 3, 0.1)).contains("label is -1"));
        assert!(message(half.apply(&images, &[0], 3, 0.1)).contains("number of images is 2"));
        assert!(message(half.apply(&images.get(0), &[0], 3, 0.1)).contains("[N, C, H, W]"));
        assert!(message(half.apply(&images, &[0, 1], 3, 1.5)).contains("label smoothing is 1.5"));
        assert!(message(MixParams::mixup(-0.1).apply(&images, &[0, 1], 3, 0.0)).contains("weight"));
        let bytes = images.to_kind(Kind::Uint8);
        assert!(message(half.apply(&bytes, &[0, 1], 3, 0.1)).contains("floating point"));
        let area = Some(CropBox { top: 2, left: 0, height: 3, width: 1 });
        let outside = MixParams { lam: 0.5, area };
        assert!(
            message(outside.apply(&images, &[0, 1], 3, 0.1)).contains("inside the images of 4×4")
        );
        assert!(Mixup::new(-1.0, 1.0, 0.5).unwrap_err().to_string().contains("mixup alpha is -1"));
        assert!(Mixup::new(1.0, f64::NAN, 0.5).is_err());
        assert!(Mixup::new(1.0, 1.0, 1.1).is_err());
    }
}
