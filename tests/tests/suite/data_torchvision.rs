//! Decoding and augmentation against Pillow, tifffile, NumPy and torchvision, live, on photographs.

use std::fs;
use std::path::Path;

use data::rng::Rng;
use data::{
    CropBox, Evaluate, IMAGENET_STD, Image, Interpolation, Normalize, Pixels, RandomResizedCrop,
    Transform, decode,
};
use serde_json::Value;
use spark_tests::difference::Difference;
use spark_tests::manifest::{list, number, reals, run_reference, text};

fn read(folder: &Path, case: &Value, key: &str) -> Vec<u8> {
    fs::read(folder.join(text(case, key))).unwrap()
}

fn load(folder: &Path, case: &Value, channels: usize) -> Image {
    decode(case["file"].as_str().unwrap(), &read(folder, case, "file"), channels).unwrap()
}

/// Levels, pixel after pixel. (Four bands of a TIFF are planes of floats, whatever the fourth is.)
fn bytes(image: &Image) -> Vec<u8> {
    match image.pixels() {
        Pixels::U8(samples) => samples.clone(),
        Pixels::F32(planes) => {
            let area = image.width() * image.height();
            let pixel = |at: usize| planes[at..].iter().step_by(area);
            (0..area).flat_map(pixel).map(|level| (level * 255.0).round() as u8).collect()
        }
    }
}

#[test]
fn agrees_with_pillow_and_torchvision() {
    let (folder, manifest) = run_reference("data_reference.py");
    let each = |section: &str, check: fn(&Path, &Value)| {
        list(&manifest, section).iter().for_each(|case| check(folder.path(), case));
    };
    each("decoding", decodes_as_pillow);
    each("truncation", refuses_as_pillow);
    each("resizing", resizes_as_torchvision);
    each("evaluation", evaluates_as_torchvision);
    each("boxes", draws_boxes_as_torchvision);
}

#[test]
fn reads_pictures_of_every_kind() {
    let (folder, manifest) = run_reference("data_pictures.py");
    let cases = manifest.as_array().unwrap();
    assert!(!cases.is_empty());
    let problems: Vec<String> = cases
        .iter()
        .filter_map(|case| Some(format!("{case}: {}", differs(folder.path(), case)?)))
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What is other than the reference says.
fn differs(folder: &Path, case: &Value) -> Option<String> {
    let file = case["file"].as_str().expect("a file");
    let decoded = decode(file, &read(folder, case, "file"), number(case, "channels"));
    let image = match (decoded, case["refused"].as_str()) {
        (Ok(_), Some(_)) => return Some("it was read".to_owned()),
        (Err(problem), Some(words)) if problem.to_string().contains(words) => return None,
        (Err(problem), _) => return Some(problem.to_string()),
        (Ok(image), None) => image,
    };
    let size = (image.height(), image.width());
    if size != (number(case, "height"), number(case, "width")) {
        return Some(format!("its size is {size:?}"));
    }
    let raw = read(folder, case, "raw");
    let difference = match (case["kind"].as_str(), image.pixels()) {
        (Some("bytes"), Pixels::U8(levels)) => Difference::of_bytes(levels, &raw),
        (Some("floats"), Pixels::F32(planes)) => {
            let theirs: Vec<f64> = floats(&raw).iter().copied().map(f64::from).collect();
            let ours: Vec<f64> = planes.iter().copied().map(f64::from).collect();
            Difference::of(&ours, &theirs)
        }
        _ => return Some("its samples are of another kind".to_owned()),
    };
    let tolerance = reals(case, "tolerance");
    let close = difference.largest <= tolerance[0] && difference.mean <= tolerance[1];
    (!close).then(|| format!("{difference:?}"))
}

fn floats(raw: &[u8]) -> Vec<f32> {
    let words = raw.chunks_exact(4);
    words.map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn decodes_as_pillow(folder: &Path, case: &Value) {
    let image = load(folder, case, number(case, "channels"));
    assert_eq!(image.width(), number(case, "width"), "{case}");
    assert_eq!(image.height(), number(case, "height"), "{case}");
    let difference = Difference::of_bytes(&bytes(&image), &read(folder, case, "raw"));
    let is_jpeg = case["file"].as_str().is_some_and(|file| file.ends_with(".jpg"));
    // The standard leaves rounding in the inverse transform, in the up-sampling of chroma and in
    // the colour conversion open: a level each, the chroma's times up to 1.77. All else is exact.
    let (largest, mean) = if is_jpeg { (3.0, 0.2) } else { (0.0, 0.0) };
    let close = difference.largest <= largest && difference.mean <= mean;
    assert!(close, "{case}: {difference:?}");
}

fn refuses_as_pillow(folder: &Path, case: &Value) {
    let decoded = decode("cut.jpg", &read(folder, case, "file"), 3);
    assert_eq!(decoded.is_ok(), case["readable"].as_bool().unwrap(), "{case}: {decoded:?}");
}

fn resizes_as_torchvision(folder: &Path, case: &Value) {
    let image = load(folder, case, number(case, "channels"));
    let [top, left, height, width] = reals(case, "box")[..] else { panic!("{case}") };
    let area = CropBox {
        top: top as usize,
        left: left as usize,
        height: height as usize,
        width: width as usize,
    };
    let size = reals(case, "size");
    let filter = match case["filter"].as_str() {
        Some("bilinear") => Interpolation::Bilinear,
        _ => Interpolation::Bicubic,
    };
    let resized = image.resized_crop(area, (size[0] as usize, size[1] as usize), filter).unwrap();
    let (ours, reference) = (bytes(&resized), read(folder, case, "raw"));
    if image.channels() == 4 {
        // Weighing by alpha and dividing by it round once more each. What lies under nearly
        // transparent pixels is a quotient of roundings, so weighed colours are compared.
        let difference = Difference::of_bytes(&premultiplied(&ours), &premultiplied(&reference));
        assert!(difference.largest <= 3.0 && difference.mean < 0.6, "{case}: {difference:?}");
    } else {
        let difference = Difference::of_bytes(&ours, &reference);
        assert!(difference.is_rounding_of_a_resize(filter), "{case}: {difference:?}");
    }
}

/// RGBA with colours weighed by their alpha.
fn premultiplied(pixels: &[u8]) -> Vec<u8> {
    let weigh = |value: u8, alpha: u8| ((u32::from(value) * u32::from(alpha) + 127) / 255) as u8;
    pixels
        .chunks_exact(4)
        .flat_map(|p| [weigh(p[0], p[3]), weigh(p[1], p[3]), weigh(p[2], p[3]), p[3]])
        .collect()
}

fn evaluates_as_torchvision(folder: &Path, case: &Value) {
    let size = number(case, "size");
    let transform = Evaluate::new(
        number(case, "short"),
        (size, size),
        Interpolation::Bicubic,
        Normalize::imagenet(),
    )
    .unwrap();
    let mut ours = vec![0.0; 3 * size * size];
    transform.apply(&load(folder, case, 3), &mut Rng::new(0, &[]), &mut ours).unwrap();
    let reference = floats(&read(folder, case, "raw"));
    // Back to levels of the bytes that were resized.
    let levels = |samples: &[f32]| -> Vec<f64> {
        let plane = size * size;
        let scaled = |(at, &v): (usize, &f32)| f64::from(v * IMAGENET_STD[at / plane]) * 255.0;
        samples.iter().enumerate().map(scaled).collect()
    };
    let difference = Difference::of(&levels(&ours), &levels(&reference));
    assert!(difference.is_rounding_of_a_resize(Interpolation::Bicubic), "{case}: {difference:?}");
}

/// Means and spreads of area share, log aspect ratio and corner, within the error of both samples.
fn draws_boxes_as_torchvision(_: &Path, case: &Value) {
    let (width, height) = (number(case, "width"), number(case, "height"));
    let scale = reals(case, "scale");
    let crop = RandomResizedCrop::new(
        (8, 8),
        (scale[0], scale[1]),
        RandomResizedCrop::RATIO,
        Interpolation::Bicubic,
    )
    .unwrap();
    let draws = number(case, "draws");
    let mut rng = Rng::new(11, &[]);
    let drawn: Vec<[f64; 4]> = (0..draws)
        .map(|_| {
            let b = crop.draw(width, height, &mut rng);
            let [w, h, top, left] = [b.width, b.height, b.top, b.left].map(|side| side as f64);
            let (width, height) = (width as f64, height as f64);
            [w * h / (width * height), (w / h).ln(), top / height, left / width]
        })
        .collect();
    let (means, spreads) = (reals(case, "mean"), reals(case, "std"));
    for quantity in 0..4 {
        let values = || drawn.iter().map(|draw| draw[quantity]);
        let mean = values().sum::<f64>() / draws as f64;
        let variance = values().map(|v| (v - mean).powi(2)).sum::<f64>() / draws as f64;
        let (spread, theirs) = (variance.sqrt(), spreads[quantity]);
        // Five standard errors of the difference of two means, and, for the spread, of skewed
        // distributions with a kurtosis of up to 10: sqrt(9 / 4 / 8000) · sqrt(2) · 5 = 12 %.
        let error = 5.0 * (spread.hypot(theirs)) / (draws as f64).sqrt() + 1e-9;
        assert!((mean - means[quantity]).abs() <= error, "{case}: {quantity}: {mean}");
        assert!((spread - theirs).abs() <= 0.12 * theirs + 1e-9, "{case}: {quantity}: {spread}");
    }
}
