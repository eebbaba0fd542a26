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
    let lengths = positions.f_norm_scalaropt_dim(2.0, [1i64].as_slice(), true)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: i64 = 8;

    fn double(values: &[f64], size: &[i64]) -> Tensor {
        Tensor::from_slice(values).view(size)
    }

    /// Row, column and chequer of the positions of a square map, each of mean 0.
    fn patterns() -> [Tensor; 3] {
        let along = Tensor::arange(SIDE, (Kind::Double, Device::Cpu)) - (SIDE - 1) as f64 / 2.0;
        let rows = along.view([SIDE, 1]).expand([SIDE, SIDE], false);
        let columns = along.view([1, SIDE]).expand([SIDE, SIDE], false);
        let sign = |index: i64| if index % 2 == 0 { 0.5 } else { -0.5 };
        let chequer: Vec<f64> =
            (0..SIDE * SIDE).map(|index| sign(index / SIDE + index % SIDE)).collect();
        [rows, columns, double(&chequer, &[SIDE, SIDE])]
    }

    /// A map of `channels` channels in which the patterns vary along three axes.
    fn example(channels: i64) -> Tensor {
        let [rows, columns, chequer] = patterns();
        let map = Tensor::ones([channels, SIDE, SIDE], (Kind::Double, Device::Cpu)) * 7.0;
        // The largest weight of the first axis is that of channel 1, whose sign is not channel 0's.
        map.get(0).copy_(&(&rows * 3.0));
        map.get(1).copy_(&(&rows * -4.0 + 100.0));
        map.get(2).copy_(&(&columns * 2.0));
        map.get(3).copy_(&(&chequer * -0.25));
        map
    }

    fn colours(map: &Tensor) -> Vec<Vec<i64>> {
        let colours = stage_colours(map, None).unwrap();
        assert_eq!((colours.kind(), colours.size()[0]), (Kind::Uint8, 3));
        (0..3).map(|c| Vec::try_from(colours.get(c).reshape([-1])).unwrap()).collect()
    }

    /// A pattern from its smallest value to its largest, 0 to 255.
    fn scaled(pattern: &Tensor) -> Vec<i64> {
        let (low, high) = (pattern.min(), pattern.max());
        let levels = ((pattern - &low) / (high - low) * 255.0).round();
        Vec::try_from(levels.to_kind(Kind::Int64).reshape([-1])).unwrap()
    }

    #[test]
    fn components_are_found_in_order_and_their_signs_are_fixed() {
        let [rows, columns, chequer] = patterns();
        // Either of the two matrices: fewer channels than positions, and more.
        for channels in [4, 100] {
            let map = example(channels);
            let expected = [scaled(&-&rows), scaled(&columns), scaled(&-&chequer)];
            let found = colours(&map);
            for (found, expected) in found.iter().zip(&expected) {
                assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1), "{found:?}");
            }
            assert_eq!(colours(&map), found, "the same again");
            // Neither an offset nor the order of channels matters.
            assert_eq!(colours(&map.flip([0])), found);
        }
    }

    #[test]
    fn only_valid_positions_count() {
        let mut map = example(5).to_kind(Kind::Float);
        let valid = Tensor::zeros([SIDE, SIDE], (Kind::Bool, Device::Cpu));
        let _ = valid.narrow(1, 0, 4).fill_(1);
        let alone = stage_colours(&map.narrow(2, 0, 4), None).unwrap();
        let _ = map.narrow(2, 4, 4).fill_(f64::NAN);
        let found = stage_colours(&map, Some(&valid)).unwrap();
        assert!(found.narrow(2, 0, 4).equal(&alone));
        assert!(bool::try_from(found.narrow(2, 4, 4).eq(i64::from(NEUTRAL)).all()).unwrap());
        let _ = map.fill_(f64::NAN);
        let hidden = stage_colours(&map, Some(&valid.zeros_like())).unwrap();
        assert!(bool::try_from(hidden.eq(i64::from(NEUTRAL)).all()).unwrap());
    }

    #[test]
    fn a_component_that_does_not_vary_is_neutral() {
        let neutral = |positions: usize| vec![i64::from(NEUTRAL); positions];
        let float = (Kind::Float, Device::Cpu);
        // Constant but for rounding, and of all sizes.
        let rounding = Tensor::rand([6, 3, 3], float) * 1e-7 + 1.0;
        for map in [rounding, Tensor::ones([2048, 1, 1], float), Tensor::zeros([1, 1, 1], float)] {
            let positions = (map.size()[1] * map.size()[2]) as usize;
            assert_eq!(colours(&map), vec![neutral(positions); 3]);
        }
        let one_channel = double(&[-2.0, 0.0, 2.0, 6.0], &[1, 2, 2]);
        let found = colours(&one_channel);
        // The percentiles lie between the outermost positions.
        assert_eq!((found[0][0], found[0][3]), (0, 255));
        assert!((63..66).contains(&found[0][1]) && (127..130).contains(&found[0][2]), "{found:?}");
        assert_eq!(found[1..], [neutral(4), neutral(4)]);
        // A component of a single position lies outside of the percentiles.
        let single = Tensor::zeros([2, 20, 20], float);
        let _ = single.get(1).get(3).narrow(0, 5, 1).fill_(1.0);
        let found = colours(&single);
        assert_eq!((found[0].iter().sum::<i64>(), found[0][65]), (255, 255));
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let float = (Kind::Float, Device::Cpu);
        let map = Tensor::ones([2, 2, 3], float);
        let refused = |map: &Tensor, valid: Option<&Tensor>| {
            stage_colours(map, valid).unwrap_err().to_string()
        };
        assert!(refused(&map.get(0), None).contains("[2, 3], but it must be [C, h, w]"));
        assert!(refused(&map.narrow(1, 0, 0), None).contains("without a size of 0"));
        assert!(refused(&map, Some(&map.get(0).tr())).contains("[3, 2], but it must have"));
        let infinite = &map / 0.0;
        assert!(refused(&infinite, None).contains("finite"));
        let told = similarity(&map, (0, 3)).unwrap_err().to_string();
        assert_eq!(told, "position is 0,3, but the map has rows 0 to 1 and columns 0 to 2");
        assert!(similarity(&map, (-1, 0)).is_err() && similarity(&map.get(0), (0, 0)).is_err());
    }

    #[test]
    fn similarity_is_the_cosine_of_the_angle() {
        // (1, 0), (3, 3), (0, 2), (-5, 0), (0, 0), (1e-12, 0).
        let map =
            double(&[1.0, 3.0, 0.0, -5.0, 0.0, 1e-12, 0.0, 3.0, 2.0, 0.0, 0.0, 0.0], &[2, 2, 3]);
        let found = |at| {
            Vec::<f64>::try_from(similarity(&map, at).unwrap().to_kind(Kind::Double).view([-1]))
                .unwrap()
        };
        let half = f64::from(0.5f32.sqrt());
        for (found, expected) in found((0, 0)).iter().zip([1.0, half, 0.0, -1.0, 0.0, 1.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert_eq!(found((1, 1)), [0.0; 6], "nothing is like nothing");
        assert_eq!(similarity(&map, (0, 0)).unwrap().size(), [2, 3]);
    }
}
