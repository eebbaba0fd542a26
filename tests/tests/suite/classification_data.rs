//! Augmentation for classification against torchvision, timm and Pillow, live.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use data::rng::Rng;
use data::{
    AutoAugment, EpochSampler, Evaluate, IMAGENET_STD, Image, Interpolation, MixParams, Normalize,
    Operation, POLICY_V0, Pixels, PolicyStep, RandomErasing, StepKind, Transform,
    TrivialAugmentWide, decode,
};
use serde_json::Value;
use spark_tests::difference::Difference;
use spark_tests::manifest::{list, number, real, reals, run_reference, text};
use tch::{Kind, Tensor};

mod folders;

fn indices(list: &Value) -> Vec<usize> {
    let list = list.as_array().expect("a list");
    list.iter().map(|value| value.as_u64().expect("an index") as usize).collect()
}

/// What the Python script wrote.
struct Reference<'a> {
    folder: &'a Path,
    manifest: Value,
}

impl Reference<'_> {
    fn bytes(&self, case: &Value, key: &str) -> Vec<u8> {
        fs::read(self.folder.join(text(case, key))).unwrap()
    }

    fn doubles(&self, case: &Value, key: &str) -> Vec<f64> {
        let bytes = self.bytes(case, key);
        let words = bytes.chunks_exact(8);
        words.map(|word| f64::from_le_bytes(word.try_into().unwrap())).collect()
    }

    fn picture(&self, case: &Value) -> Image {
        let picture = &self.manifest["pictures"][text(case, "picture")];
        let (width, height) = (number(picture, "width"), number(picture, "height"));
        Image::new(width, height, 3, Pixels::U8(self.bytes(picture, "raw"))).unwrap()
    }
}

#[test]
fn agrees_with_torchvision_and_timm() {
    let (folder, manifest) = run_reference("classification_data.py");
    let reference = Reference { folder: folder.path(), manifest };
    applies_torchvisions_operations(&reference);
    draws_as_trivial_augment_wide(&reference);
    has_timms_policy(&reference);
    applies_timms_steps(&reference);
    erases_as_timm(&reference);
    mixes_as_timm(&reference);
    evaluates_as_timm(&reference);
    repeats_as_timm(&reference);
}

/// Operations on values have integer results and must be equal. Geometry is the same arithmetic in
/// double precision, cut to whole levels; where a compiler fuses multiplications with additions,
/// or a slope went through degrees and back, results that are whole to the last bit may come out
/// one lower: a level, in less than a thousandth of the samples.
fn assert_same(operation: Operation, image: &Image, reference: &[u8], case: &Value) {
    let Pixels::U8(ours) = image.pixels() else { panic!("{case}: floats") };
    let difference = Difference::of_bytes(ours, reference);
    let resamples = matches!(
        operation,
        Operation::ShearX(_)
            | Operation::ShearY(_)
            | Operation::TranslateX(_)
            | Operation::TranslateY(_)
            | Operation::Rotate(_)
    );
    let (largest, mean) = if resamples { (1.0, 1e-3) } else { (0.0, 0.0) };
    let same = difference.largest <= largest && difference.mean <= mean;
    assert!(same, "{operation:?}: {difference:?} in {case}");
}

fn applies_torchvisions_operations(reference: &Reference) {
    let cases = list(&reference.manifest, "operations");
    let mut changed = BTreeMap::new();
    for case in cases {
        let negative = case["negative"].as_bool().unwrap();
        let operation =
            TrivialAugmentWide::operation(number(case, "number"), number(case, "bin"), negative);
        assert_eq!(name(operation), text(case, "name"));
        let picture = reference.picture(case);
        let image = operation.apply(picture.clone(), TrivialAugmentWide::default().fill).unwrap();
        assert_same(operation, &image, &reference.bytes(case, "raw"), case);
        *changed.entry(name(operation)).or_insert(false) |= image != picture;
    }
    assert_eq!(changed.len(), TrivialAugmentWide::OPERATIONS);
    assert!(changed.iter().all(|(name, changed)| *changed == (name != "Identity")), "{changed:?}");
}

/// The variant's name, which is torchvision's.
fn name(operation: Operation) -> String {
    let text = format!("{operation:?}");
    text.split('(').next().unwrap_or_default().to_owned()
}

/// torchvision's magnitude of an operation.
fn magnitude(operation: Operation) -> f64 {
    match operation {
        Operation::ShearX(value)
        | Operation::ShearY(value)
        | Operation::TranslateX(value)
        | Operation::TranslateY(value)
        | Operation::Rotate(value)
        | Operation::Solarize(value) => value,
        Operation::Brightness(factor)
        | Operation::Color(factor)
        | Operation::Contrast(factor)
        | Operation::Sharpness(factor) => factor - 1.0,
        Operation::Posterize(bits) => f64::from(bits),
        _ => 0.0,
    }
}

/// Mean and standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt())
}

/// Whether two samples have the same mean and spread: within five standard errors of the
/// difference, where that of a spread assumes a kurtosis of up to 10.
fn assert_alike(ours: &[f64], (mean, std): (f64, f64), theirs: usize, what: &str) {
    let (our_mean, our_std) = moments(ours);
    let share = (1.0 / ours.len() as f64 + 1.0 / theirs as f64).sqrt();
    let error = 5.0 * our_std.max(std) * share + 1e-9;
    assert!((our_mean - mean).abs() <= error, "{what}: mean {our_mean}, theirs {mean}");
    let error = 1.5 * error;
    assert!((our_std - std).abs() <= error, "{what}: spread {our_std}, theirs {std}");
}

fn draws_as_trivial_augment_wide(reference: &Reference) {
    let mut rng = Rng::new(3, &[]);
    let mut drawn: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..14_000 {
        let operation = TrivialAugmentWide::draw(&mut rng);
        drawn.entry(name(operation)).or_default().push(magnitude(operation));
    }
    let theirs = list(&reference.manifest, "trivial_draws");
    assert_eq!((theirs.len(), drawn.len()), (14, 14));
    for case in theirs {
        let (name, mut expected) = (text(case, "name"), reals(case, "magnitudes"));
        if name.starts_with("Translate") {
            // torchvision cuts the fraction off when it applies the operation, though not always
            // of an exact 16: see the script.
            expected
                .iter_mut()
                .for_each(|pixels| *pixels = ((*pixels * 1e5).round() / 1e5).trunc());
        }
        let ours = &drawn[name];
        // Binomial(14000, 1/14) has standard deviation 30.5; five of them for ours, and of the
        // difference to theirs.
        assert!(ours.len().abs_diff(1000) < 152, "{name}: {}", ours.len());
        assert!(ours.len().abs_diff(expected.len()) < 215, "{name}: {}", expected.len());
        assert_alike(ours, moments(&expected), expected.len(), name);
        // Each of at most 62 magnitudes comes 16 times or more on average: all do.
        assert_eq!(distinct(ours), distinct(&expected), "{name}");
    }
}

/// The values that occur, in thousandths.
fn distinct(values: &[f64]) -> Vec<i64> {
    let mut found: Vec<i64> = values.iter().map(|value| (value * 1e3).round() as i64).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn has_timms_policy(reference: &Reference) {
    let policy = &reference.manifest["policy"];
    let fill: Vec<u64> = list(policy, "fill").iter().map(|v| v.as_u64().unwrap()).collect();
    let ours = AutoAugment::with_mean(&Normalize::imagenet());
    assert_eq!(ours.fill().map(u64::from), fill[..]);
    let table: Vec<Vec<(String, f64, u32)>> =
        serde_json::from_value(policy["table"].clone()).unwrap();
    let ours: Vec<Vec<(String, f64, u32)>> = POLICY_V0
        .iter()
        .map(|pair| {
            let row =
                |step: &PolicyStep| (format!("{:?}", step.kind), step.probability, step.level);
            pair.iter().map(row).collect()
        })
        .collect();
    assert_eq!(ours, table);
}

fn applies_timms_steps(reference: &Reference) {
    let kinds: BTreeMap<String, StepKind> =
        POLICY_V0.iter().flatten().map(|step| (format!("{:?}", step.kind), step.kind)).collect();
    let fill = AutoAugment::with_mean(&Normalize::imagenet()).fill();
    for case in list(&reference.manifest["policy"], "steps") {
        let picture = reference.picture(case);
        let negative = case["negative"].as_bool().unwrap();
        let level = number(case, "level") as u32;
        let operation = kinds[text(case, "name")].at(level, negative, picture.height());
        let black = vec![0; 3 * picture.width() * picture.height()];
        let image = operation.apply(picture, fill).unwrap();
        if case["error"].is_string() {
            // Pillow no longer takes 0 bits; it used to give a black image.
            assert_eq!((operation, image.pixels()), (Operation::Posterize(0), &Pixels::U8(black)));
        } else {
            assert_same(operation, &image, &reference.bytes(case, "raw"), case);
        }
    }
}

fn erases_as_timm(reference: &Reference) {
    for case in list(&reference.manifest, "erasing") {
        let size = (number(case, "height"), number(case, "width"));
        let (height, width) = (size.0 as f64, size.1 as f64);
        let draws = number(case, "draws");
        let mut rng = Rng::new(12, &[]);
        let often = RandomErasing::new(0.25).unwrap();
        let erased = (0..draws).filter(|_| often.draw(size, &mut rng).is_some()).count();
        let always = RandomErasing::new(1.0).unwrap();
        let boxes: Vec<_> = (0..draws).filter_map(|_| always.draw(size, &mut rng)).collect();
        // Binomial(4000, p) has standard deviation 27.4 at a quarter and at most 31.6; five of
        // the difference of two.
        assert!(erased.abs_diff(number(case, "erased")) < 194, "{case}: {erased}");
        assert!(boxes.len().abs_diff(number(case, "boxes")) < 224, "{case}: {}", boxes.len());
        let (means, spreads) = (reals(case, "mean"), reals(case, "std"));
        for quantity in 0..4 {
            let values: Vec<f64> = boxes
                .iter()
                .map(|b| {
                    let [w, h, top, left] = [b.width, b.height, b.top, b.left].map(|v| v as f64);
                    [w * h / (width * height), (h / w).ln(), top / height, left / width][quantity]
                })
                .collect();
            let theirs = (means[quantity], spreads[quantity]);
            assert_alike(&values, theirs, number(case, "boxes"), &format!("{quantity} of {case}"));
        }
    }
}

fn mixes_as_timm(reference: &Reference) {
    let mixing = &reference.manifest["mixing"];
    let shape: Vec<i64> = list(mixing, "shape").iter().map(|v| v.as_i64().unwrap()).collect();
    let labels: Vec<i64> = list(mixing, "labels").iter().map(|v| v.as_i64().unwrap()).collect();
    let images = Tensor::from_slice(&reference.doubles(mixing, "images")).view(&shape[..]);
    let size = (shape[2] as usize, shape[3] as usize);
    let (classes, smoothing) = (number(mixing, "classes"), real(mixing, "smoothing"));
    for case in list(mixing, "cases") {
        let lam = real(case, "lam");
        let params = match &case["centre"] {
            Value::Null => MixParams::mixup(lam),
            centre => {
                let centre = indices(centre);
                MixParams::cutmix(lam, (centre[0], centre[1]), size)
            }
        };
        let before = images.copy();
        let (mixed, targets) = params.apply(&images, &labels, classes, smoothing).unwrap();
        assert_eq!(images, before, "the batch itself is left alone");
        assert_eq!((mixed.kind(), targets.kind()), (Kind::Double, Kind::Double));
        for (ours, key) in [(mixed, "images"), (targets, "targets")] {
            let expected = Tensor::from_slice(&reference.doubles(case, key)).view_as(&ours);
            let difference = (ours - expected).abs().max().double_value(&[]);
            // A handful of roundings of float64 numbers below 10.
            assert!(difference < 1e-14, "{key} of {case}: {difference}");
        }
    }
}

fn evaluates_as_timm(reference: &Reference) {
    for case in list(&reference.manifest, "evaluation") {
        let (size, normalize) = (number(case, "size"), Normalize::imagenet());
        let transform = match text(case, "mode") {
            "squash" => Evaluate::squashed((size, size), Interpolation::Bicubic, normalize),
            _ => {
                let crop_pct = real(case, "crop_pct");
                Evaluate::with_crop_pct(size, crop_pct, Interpolation::Bicubic, normalize)
            }
        };
        let image = decode(text(case, "file"), &reference.bytes(case, "file"), 3).unwrap();
        let mut ours = vec![0.0; 3 * size * size];
        transform.unwrap().apply(&image, &mut Rng::new(0, &[]), &mut ours).unwrap();
        let bytes = reference.bytes(case, "raw");
        let words = bytes.chunks_exact(4);
        let theirs: Vec<f32> =
            words.map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect();
        // Back to levels of the bytes that were resized.
        let levels = |samples: &[f32]| -> Vec<f64> {
            let scaled = |(at, &v): (usize, &f32)| f64::from(v * IMAGENET_STD[at / size / size]);
            samples.iter().enumerate().map(|sample| scaled(sample) * 255.0).collect()
        };
        let difference = Difference::of(&levels(&ours), &levels(&theirs));
        let close = difference.is_rounding_of_a_resize(Interpolation::Bicubic);
        assert!(close, "{case}: {difference:?}");
    }
}

/// Permutations differ, so places in the permutation are compared.
fn repeats_as_timm(reference: &Reference) {
    for case in list(&reference.manifest, "repeats") {
        let (length, repeats) = (number(case, "length"), number(case, "repeats"));
        let streams = list(case, "streams");
        let place_of = |permutation: &[usize]| {
            let mut place = vec![0; length];
            permutation.iter().enumerate().for_each(|(at, &index)| place[index] = at);
            place
        };
        let theirs = place_of(&indices(&case["permutation"]));
        let whole = EpochSampler::new(length, length, 9).unwrap().batch(4, 0);
        let ours = place_of(&whole);
        // By position, since a batch's second half is dealt to ranks in descending order here.
        let world = streams.len();
        let mut shown = BTreeMap::new();
        for rank in 0..world {
            let sampler = EpochSampler::distributed(length, 8, 9, rank, world).unwrap();
            let sampler = sampler.with_repeats(repeats).unwrap();
            for step in 0..sampler.steps() {
                shown.extend(sampler.positions(step).zip(sampler.batch(4, step)));
            }
        }
        for (rank, stream) in streams.iter().enumerate() {
            let expected: Vec<usize> = indices(stream).iter().map(|&i| theirs[i]).collect();
            let positions = (0..expected.len()).map(|place| (place * world + rank) as u64);
            // timm cuts the epoch to a multiple of 256 images where there are so many.
            let shown: Option<Vec<usize>> =
                positions.map(|position| shown.get(&position).map(|&i| ours[i])).collect();
            assert!(expected.len() > 30, "{length}");
            assert_eq!(shown, Some(expected), "rank {rank} of {world}");
        }
    }
}
