//! Feature maps made visible: their principal components as colours, and the cosine similarity of
//! their positions.

use backbone::{Error, Result, Size};
use tch::{Device, Kind, Tensor};

/// Level of all three colours where a position is hidden, and of a component that does not vary.
pub const NEUTRAL: u8 = 128;

/// Percentiles of a component that become black and full colour: a few extreme positions, often
/// at the border, would leave the others one shade.
const PERCENTILES: [f64; 2] = [0.01, 0.99];

/// Variance that is rounding, as a share of the map's mean square: float32 has 24 bits, of which
/// some are lost in a network's layers.
const ROUNDING: f64 = 1e-12;

/// The first three principal components of a map as red, green and blue.
///
/// `feature` is `[C, h, w]`; `valid` `[h, w]` is true (or not 0) at positions that count, all if it
/// is not given. The components are those of the valid positions' features in float64, not
/// standardised. Each is turned so that the channel with the largest weight counts positive (as
/// `svd_flip` in scikit-learn does by rows of V), so that the same map has the same colours, and
/// scaled from its percentiles 1 to 99 to 0–255. Other positions, and components that do not vary
/// or that a map of few channels or positions lacks, are [`NEUTRAL`].
///
/// The result is uint8 `[3, h, w]`, on the processor.
///
/// # Errors
/// Another shape, no positions, or values that are not finite at valid positions.
pub fn stage_colours(feature: &Tensor, valid: Option<&Tensor>) -> Result<Tensor> {
    let (height, width) = map_size(feature)?;
    let shown = match valid {
        None => Tensor::arange(height * width, (Kind::Int64, Device::Cpu)),
        Some(valid) => valid_positions(valid, (height, width))?,
    };
    let colours = Tensor::full([3, height * width], i64::from(NEUTRAL), (Kind::Uint8, Device::Cpu));
    if shown.numel() == 0 {
        return Ok(colours.view([3, height, width]));
    }
    let positions = rows_of_positions(feature).index_select(0, &shown);
    if !bool::try_from(positions.isfinite().all())? {
        let rule = "features must be finite to have principal components";
        return Err(Error::invalid("a value of the feature map", "NaN or infinite", rule));
    }
    let levels = levels(&principal_components(&positions)?)?;
    Ok(colours.f_index_copy(1, &shown, &levels.tr())?.view([3, height, width]))
}

/// Cosine similarity of every position of `feature` `[C, h, w]` to the one in row `y` and column
/// `x`: float32 `[h, w]` on the processor, −1 to 1, and 0 where the features are all 0 (hidden
/// positions of a sparse pass).
///
/// # Errors
/// Another shape, no positions, or a position outside the map.
pub fn similarity(feature: &Tensor, (y, x): Size) -> Result<Tensor> {
    let (height, width) = map_size(feature)?;
    if !(0..height).contains(&y) || !(0..width).contains(&x) {
        let rule = format!("the map has rows 0 to {} and columns 0 to {}", height - 1, width - 1);
        return Err(Error::invalid("position", format!("{y},{x}"), rule));
    }
    let positions = rows_of_positions(feature);
    let lengths = positions.f_linalg_vector_norm(2, [-1i64].as_slice(), true, None)?;
    // A position without features points nowhere: 0 divided by 1.
    let lengths = lengths.where_self(&lengths.ne(0.0), &Tensor::from(1.0));
    let directions = positions / lengths;
    let similarities = directions.f_mv(&directions.get(y * width + x))?;
    Ok(similarities.clamp(-1.0, 1.0).to_kind(Kind::Float).view([height, width]))
}

fn map_size(feature: &Tensor) -> Result<Size> {
    match feature.size()[..] {
        [channels, height, width] if channels * height * width > 0 => Ok((height, width)),
        _ => {
            let value = format!("{:?}", feature.size());
            Err(Error::invalid("feature map", value, "it must be [C, h, w] without a size of 0"))
        }
    }
}

/// Flat indices of the positions that are not 0.
fn valid_positions(valid: &Tensor, (height, width): Size) -> Result<Tensor> {
    if valid.size() != [height, width] {
        let rule = format!("it must have the map's size, [{height}, {width}]");
        return Err(Error::invalid("valid", format!("{:?}", valid.size()), rule));
    }
    Ok(valid.to_device(Device::Cpu).reshape([-1]).f_nonzero()?.view([-1]))
}

/// `[h·w, C]` in float64 on the processor.
fn rows_of_positions(feature: &Tensor) -> Tensor {
    let channels = feature.size()[0];
    feature.detach().to_device(Device::Cpu).to_kind(Kind::Double).reshape([channels, -1]).tr()
}

/// Coordinates of the rows of `positions` `[P, C]` on their first principal axes, `[P, 3 or
/// fewer]`, without axes along which nothing varies.
fn principal_components(positions: &Tensor) -> Result<Tensor> {
    let size = positions.size();
    let centred = positions - positions.mean_dim([0i64].as_slice(), true, Kind::Double);
    // Of the two matrices with the same eigenvalues, the smaller one.
    let by_channel = size[1] <= size[0];
    let products =
        if by_channel { centred.tr().matmul(&centred) } else { centred.matmul(&centred.tr()) };
    let (eigenvalues, vectors) = products.f_linalg_eigh("L")?;
    // The eigenvalues ascend.
    let variances = Vec::<f64>::try_from(eigenvalues.flip([0]))?;
    let rounding = ROUNDING * positions.square().sum(Kind::Double).double_value(&[]);
    let count = variances.iter().take(3).filter(|&&variance| variance > rounding).count() as i64;
    let first = vectors.flip([1]).narrow(1, 0, count);
    let scores = if by_channel {
        centred.matmul(&first)
    } else {
        first * eigenvalues.flip([0]).narrow(0, 0, count).sqrt()
    };
    Ok(&scores * signs(&centred.tr().matmul(&scores)))
}

/// 1 or −1 for each column of `weights` `[C, k]`: the sign of its largest entry by magnitude.
fn signs(weights: &Tensor) -> Tensor {
    if weights.size()[1] == 0 {
        return Tensor::ones([0], (Kind::Double, Device::Cpu));
    }
    let largest = weights.abs().argmax(0, true);
    weights.gather(0, &largest, false).view([-1]).sign()
}

/// Columns of `scores` `[P, 3 or fewer]` as uint8 `[P, 3]`.
fn levels(scores: &Tensor) -> Result<Tensor> {
    let (positions, count) = (scores.size()[0], scores.size()[1]);
    let missing =
        Tensor::full([positions, 3 - count], i64::from(NEUTRAL), (Kind::Uint8, Device::Cpu));
    if count == 0 {
        return Ok(missing);
    }
    let bounds = scores.f_quantile(&Tensor::from_slice(&PERCENTILES), 0, false, "linear")?;
    let (low, high) = (bounds.get(0), bounds.get(1));
    // Few positions may differ from all others; they lie outside of both percentiles then.
    let (least, most) =
        (scores.amin([0i64].as_slice(), false), scores.amax([0i64].as_slice(), false));
    let spread = high.greater_tensor(&low);
    let (low, high) = (low.where_self(&spread, &least), high.where_self(&spread, &most));
    let scaled = (scores - &low) / (high - low) * 255.0;
    let scaled = scaled.clamp(0.0, 255.0).round().to_kind(Kind::Uint8);
    Ok(Tensor::cat(&[scaled, missing], 1))
}
