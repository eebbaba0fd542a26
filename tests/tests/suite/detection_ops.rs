//! The detector's operators against torchvision, pycocotools and plain torch,
//! live, on random and degenerate operands.

mod cases;

use cases::{Case, Cases};
use detection::ops::{self, AnchorGenerator, AnchorStyle, BoxCoder, MaskPaste, Matcher};
use detection::structures::{Bitmap, Boxes, InstanceMask, MaskPatch};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

#[test]
fn agree_with_torchvision_and_pycocotools() {
    let cases = Cases::with_results();
    for case in &cases.all {
        match case.check() {
            "roi_align" => roi_align(case),
            "nms" => nms(case),
            "batched_nms" => batched_nms(case),
            "box_coder" => box_coder(case),
            "matcher" => matcher(case),
            "anchors" => anchors(case),
            "boxes" => boxes(case),
            "paste_torchvision" => paste(case, MaskPaste::Torchvision),
            "paste_looked_up" => paste(case, MaskPaste::Detectron2),
            "bitmaps" => bitmaps(case),
            "polygons" => polygons(case),
            other => panic!("no check {other}"),
        }
    }
}

fn roi_align(case: &Case) {
    let features = case.given("features").set_requires_grad(true);
    let output = case.numbers("output");
    let pooled = ops::roi_align(
        &features,
        &case.given("rois"),
        (output[0] as i64, output[1] as i64),
        case.number("scale"),
        case.number("ratio") as i64,
        case.parameter("aligned").as_bool().unwrap(),
    );
    (&pooled * case.given("upstream")).sum(pooled.kind()).backward();
    // Sums of up to a few hundred products of numbers around 1, in another order:
    // a hundred roundings of values up to 10.
    let tolerance = if features.kind() == Kind::Double { 1e-12 } else { 2e-5 };
    case.close("pooled", &pooled.detach(), tolerance);
    case.close("gradient", &features.grad(), tolerance);
}

fn nms(case: &Case) {
    let kept = ops::nms(&case.given("boxes"), &case.given("scores"), case.number("threshold"));
    case.equal("kept", &kept);
}

fn batched_nms(case: &Case) {
    let (boxes, scores) = (case.given("boxes"), case.given("scores"));
    let kept = ops::batched_nms(&boxes, &scores, &case.given("classes"), case.number("threshold"));
    case.equal("kept", &kept);
}

fn box_coder(case: &Case) {
    let weights = case.numbers("weights");
    let coder = BoxCoder::new([weights[0], weights[1], weights[2], weights[3]]);
    let sources = case.given("sources");
    // The same operations on numbers up to a thousand, give or take the order of
    // two factors.
    case.close("deltas", &coder.encode(&sources, &case.given("targets")), 1e-11);
    case.close("boxes", &coder.decode(&case.given("deltas"), &sources), 1e-11);
}

fn matcher(case: &Case) {
    let low_quality = case.parameter("low_quality").as_bool().unwrap();
    let thresholds = [case.number("low"), case.number("high")];
    let matcher = Matcher::new(&thresholds, &[0, -1, 1], low_quality).unwrap();
    let found = matcher.match_(&case.given("iou"));
    case.equal("label", &found.label);
    // torchvision has no object for what is not matched.
    let theirs = case.result("object");
    let matched = theirs.ge(0);
    assert!(found.object.masked_select(&matched).equal(&theirs.masked_select(&matched)));
}

fn anchors(case: &Case) {
    let generator = AnchorGenerator {
        sizes: serde_json::from_value(case.parameter("sizes").clone()).unwrap(),
        aspect_ratios: case.numbers("ratios"),
        strides: Vec::new(),
        offset: 0.0,
        style: AnchorStyle::Torchvision,
    };
    let image = case.numbers("image");
    let maps: Vec<[i64; 2]> = serde_json::from_value(case.parameter("maps").clone()).unwrap();
    let levels: Vec<Tensor> = maps
        .iter()
        .enumerate()
        .map(|(level, &[height, width])| {
            let strides = (image[0] as i64 / height, image[1] as i64 / width);
            let size = (height, width);
            generator.grid_with_strides(level, size, strides, Kind::Float, Device::Cpu)
        })
        .collect();
    case.equal("anchors", &Tensor::cat(&levels, 0));
}

fn boxes(case: &Case) {
    let (some, others) = (Boxes(case.given("some")), Boxes(case.given("others")));
    let size = case.numbers("size");
    // detectron2's: torchvision's, but for pairs that share nothing.
    let theirs = case.result("iou");
    let touching = theirs.gt(0.0);
    assert!(some.iou(&others).equal(&theirs.where_self(&touching, &theirs.zeros_like())));
    case.equal("area", &some.area());
    case.equal("clipped", &some.clip((size[0] as i64, size[1] as i64)).0);
    case.equal("large", &some.at_least(case.number("shortest")).nonzero().flatten(0, -1));
}

fn paste(case: &Case, paste: MaskPaste) {
    let size = case.numbers("size");
    let size = (size[0] as usize, size[1] as usize);
    let (masks, boxes) = (case.given("masks"), case.given("boxes"));
    let pasted = ops::paste_masks(&masks, &boxes, size, 0.5, paste);
    let pasted: Vec<Bitmap> = pasted.iter().map(Bitmap::from_rle).collect();
    let probability = case.result("probability");
    let ours = stack(&pasted, probability.kind());
    case.same_side_of_one_half(&ours, &probability);
}

fn bitmaps(case: &Case) {
    let masks = cases::bitmaps_of(&case.given("masks"));
    let boxes = Vec::<Vec<f64>>::try_from(case.given("boxes")).unwrap();
    let boxes: Vec<[f64; 4]> = boxes.iter().map(|b| [b[0], b[1], b[2], b[3]]).collect();
    let side = case.number("side") as usize;
    let cells = |values: Vec<Vec<f32>>| {
        Tensor::from_slice(&values.concat()).view([-1, side as i64, side as i64])
    };
    let pairs = || masks.iter().zip(&boxes);
    let soft = cells(pairs().map(|(m, &area)| MaskPatch::of_bitmap(m).soft(area, side)).collect());
    // Averages of zeros and ones in float32.
    case.close("soft", &soft, 1e-6);
    let mask = |bitmap: &Bitmap| InstanceMask::Bitmap(bitmap.clone());
    let cut = pairs().map(|(m, &area)| mask(m).crop_and_resize(area, side));
    case.same_side_of_one_half(&cells(cut.collect()), &case.result("hard"));
    let size = case.numbers("resized");
    let size = (size[0] as usize, size[1] as usize);
    let resized: Vec<Bitmap> = masks
        .iter()
        .map(|bitmap| match mask(bitmap).scale(1.0, 1.0, size) {
            InstanceMask::Bitmap(resized) => resized,
            other => panic!("a bitmap became {other:?}"),
        })
        .collect();
    case.equal("nearest", &stack(&resized, Kind::Uint8));
}

fn polygons(case: &Case) {
    let polygons: Vec<Vec<Vec<f64>>> =
        serde_json::from_value(case.parameter("polygons").clone()).unwrap();
    let size = case.numbers("size");
    let size = (size[0] as usize, size[1] as usize);
    let side = case.number("side") as usize;
    let boxes = Vec::<Vec<f64>>::try_from(case.given("boxes")).unwrap();
    let (mut whole, mut cut) = (Vec::new(), Vec::new());
    for (parts, area) in polygons.into_iter().zip(&boxes) {
        let mask = InstanceMask::Polygons(parts);
        whole.push(mask.to_bitmap(size).unwrap());
        let cells = mask.crop_and_resize([area[0], area[1], area[2], area[3]], side);
        let pixels = cells.iter().map(|&cell| cell as u8).collect();
        cut.push(Bitmap { height: side, width: side, pixels });
    }
    case.equal("whole", &stack(&whole, Kind::Uint8));
    case.equal("cut", &stack(&cut, Kind::Uint8));
}

/// `[N, H, W]`.
fn stack(bitmaps: &[Bitmap], kind: Kind) -> Tensor {
    let one = |bitmap: &Bitmap| {
        Tensor::from_slice(&bitmap.pixels).view([bitmap.height as i64, bitmap.width as i64])
    };
    Tensor::stack(&bitmaps.iter().map(one).collect::<Vec<_>>(), 0).to_kind(kind)
}

impl Case {
    fn number(&self, name: &str) -> f64 {
        self.parameter(name).as_f64().unwrap_or_else(|| panic!("{name} of {}", self.name))
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        let list = self.parameter(name).as_array();
        let list = list.unwrap_or_else(|| panic!("{name} of {}", self.name));
        list.iter().filter_map(Value::as_f64).collect()
    }

    /// The same values, shapes and kinds; what is not a number in the same places.
    fn equal(&self, name: &str, ours: &Tensor) {
        let theirs = self.result(name);
        assert_eq!(ours.size(), theirs.size(), "{}.{name}", self.name);
        assert_eq!(ours.kind(), theirs.kind(), "{}.{name}", self.name);
        let same = ours.eq_tensor(&theirs).logical_or(&ours.isnan().logical_and(&theirs.isnan()));
        assert!(bool::try_from(same.all()).unwrap(), "{}.{name}", self.name);
    }

    /// The same shapes and kinds, values to within `tolerance`.
    fn close(&self, name: &str, ours: &Tensor, tolerance: f64) {
        let theirs = self.result(name);
        assert_eq!(ours.size(), theirs.size(), "{}.{name}", self.name);
        assert_eq!(ours.kind(), theirs.kind(), "{}.{name}", self.name);
        if ours.numel() == 0 {
            return;
        }
        let apart = f64::try_from((ours - &theirs).abs().max()).unwrap();
        assert!(apart <= tolerance, "{}.{name}: {apart} apart", self.name);
    }

    /// `ours` is 1 where the reference's probability is one half or more. Where it
    /// is one half but for the rounding of float32, either is right.
    fn same_side_of_one_half(&self, ours: &Tensor, probability: &Tensor) {
        assert_eq!(ours.size(), probability.size(), "{}", self.name);
        let decided = (probability - 0.5).abs().gt(1e-5);
        let wrong = ours.ge(0.5).not_equal_tensor(&probability.ge(0.5)).logical_and(&decided);
        let wrong = i64::try_from(wrong.sum(Kind::Int64)).unwrap();
        assert_eq!(wrong, 0, "{}: {wrong} of {} pixels", self.name, ours.numel());
        // A comparison of mostly undecided, or of empty, masks would prove nothing.
        let share = |mask: &Tensor| f64::try_from(mask.mean(Kind::Double)).unwrap();
        assert!(share(&decided) > 0.8 && share(ours) > 0.01, "{}", self.name);
    }
}
