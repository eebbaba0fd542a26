//! The operands: random ones, and those that break careless code.

use std::collections::BTreeMap;
use std::fs;
use std::rc::Rc;

use data::rng::Rng;
use detection::structures::Bitmap;
use serde_json::{Value, json};
use spark_tests::run_python;
use tch::{Kind, Tensor};

/// Tensors by `CASE.NAME`.
type Tensors = BTreeMap<String, Tensor>;

/// One call of an operator.
pub struct Case {
    pub name: String,
    parameters: Value,
    operands: BTreeMap<&'static str, Tensor>,
    results: Rc<Tensors>,
}

/// All calls, with what the references returned.
pub struct Cases {
    pub all: Vec<Case>,
}

impl Case {
    /// Which operator this is about.
    pub fn check(&self) -> &str {
        self.parameter("check").as_str().unwrap()
    }

    /// A parameter that is no tensor.
    pub fn parameter(&self, name: &str) -> &Value {
        &self.parameters[name]
    }

    /// An operand.
    pub fn given(&self, name: &str) -> Tensor {
        self.operands[name].shallow_clone()
    }

    /// What the reference returned.
    pub fn result(&self, name: &str) -> Tensor {
        let name = format!("{}.{name}", self.name);
        self.results.get(&name).unwrap_or_else(|| panic!("no {name}")).shallow_clone()
    }
}

impl Cases {
    /// Draws the operands and runs the references on them, in one process.
    pub fn with_results() -> Self {
        let mut cases = Cases { all: Vec::new() };
        cases.roi_align();
        cases.suppression();
        cases.box_coder();
        cases.matcher();
        cases.anchors();
        cases.boxes();
        cases.paste();
        cases.bitmaps();
        cases.polygons();

        let folder = tempfile::tempdir().unwrap();
        let operands: Vec<(String, Tensor)> = cases
            .all
            .iter()
            .flat_map(|case| case.operands.iter().map(move |(name, tensor)| (case, name, tensor)))
            .map(|(case, name, tensor)| (format!("{}.{name}", case.name), tensor.contiguous()))
            .collect();
        Tensor::write_safetensors(&operands, folder.path().join("operands.safetensors")).unwrap();
        let calls: Vec<&Value> = cases.all.iter().map(|case| &case.parameters).collect();
        fs::write(folder.path().join("cases.json"), serde_json::to_vec(&calls).unwrap()).unwrap();
        run_python("detection_ops.py", &[folder.path()]);
        let results = Tensor::read_safetensors(folder.path().join("results.safetensors")).unwrap();
        let results: Rc<Tensors> = Rc::new(results.into_iter().collect());
        cases.all.iter_mut().for_each(|case| case.results = results.clone());
        cases
    }

    fn add<const N: usize>(
        &mut self,
        check: &str,
        mut parameters: Value,
        operands: [(&'static str, Tensor); N],
    ) {
        let name = format!("{check}{}", self.all.len());
        parameters["name"] = json!(name);
        parameters["check"] = json!(check);
        let operands = operands.into_iter().collect();
        self.all.push(Case { name, parameters, operands, results: Rc::default() });
    }

    fn roi_align(&mut self) {
        let mut draw = Draw::new(1);
        let (images, channels, height, width) = (2, 5, 11, 13);
        for kind in [Kind::Double, Kind::Float] {
            for (aligned, ratio, scale, output) in [
                (true, 0, 0.25, [7, 7]),
                (true, 2, 0.25, [3, 5]),
                (false, 0, 1.0, [4, 3]),
                (false, 2, 0.125, [7, 7]),
                (true, 0, 1.0 / 3.0, [1, 1]),
                (false, 3, 1.0, [2, 14]),
            ] {
                let mut rois = draw.boxes(30, width as f64 / scale, height as f64 / scale);
                rois.extend(degenerate(scale, aligned && ratio == 0));
                let rows: Vec<f64> = rois
                    .iter()
                    .enumerate()
                    .flat_map(|(at, roi)| [(at % images) as f64, roi[0], roi[1], roi[2], roi[3]])
                    .collect();
                let count = rois.len() as i64;
                let features = draw.normal(&[images as i64, channels, height, width], kind);
                let upstream = draw.normal(&[count, channels, output[0], output[1]], kind);
                let rois = Tensor::from_slice(&rows).view([-1, 5]).to_kind(kind);
                let parameters =
                    json!({"output": output, "scale": scale, "ratio": ratio, "aligned": aligned});
                let operands = [("features", features), ("rois", rois), ("upstream", upstream)];
                self.add("roi_align", parameters, operands);
            }
        }
        let none = Tensor::zeros([0, 5], (Kind::Float, tch::Device::Cpu));
        let features = draw.normal(&[1, 2, 4, 4], Kind::Float);
        let upstream = draw.normal(&[0, 2, 7, 7], Kind::Float);
        let parameters = json!({"output": [7, 7], "scale": 1.0, "ratio": 0, "aligned": true});
        let operands = [("features", features), ("rois", none), ("upstream", upstream)];
        self.add("roi_align", parameters, operands);
    }

    fn suppression(&mut self) {
        let mut draw = Draw::new(2);
        // torchvision treats up to 1000 boxes, and more, in different ways.
        for count in [0, 1, 7, 300, 1500] {
            for threshold in [0.3, 0.5, 0.7] {
                // Small boxes of few whole pixels overlap by one half exactly.
                let (side, grid) = if count == 300 { (16.0, 1.0) } else { (100.0, 0.25) };
                let mut rows = draw.boxes(count, side, side);
                for at in (5..count).step_by(5) {
                    rows[at] = rows[at - 1 - at % 3]; // copies
                }
                for at in (3..count).step_by(11) {
                    rows[at][2] = rows[at][0]; // without width
                }
                // On a grid, the offsets that torchvision adds to part classes stay
                // exact in float32.
                let on_grid = |side: &f64| (side.abs() / grid).round() * grid;
                let rows: Vec<f64> = rows.concat().iter().map(on_grid).collect();
                let boxes = Tensor::from_slice(&rows).view([-1, 4]).to_kind(Kind::Float);
                // Ten scores in all, so that there are ties.
                let scores: Vec<f64> =
                    (0..count).map(|_| (draw.0.uniform() * 10.0).floor() / 10.0).collect();
                let scores = Tensor::from_slice(&scores).to_kind(Kind::Float);
                let classes: Vec<i64> = (0..count).map(|_| draw.0.below(4) as i64).collect();
                let classes = Tensor::from_slice(&classes);
                let parameters = json!({"threshold": threshold});
                let of = Tensor::shallow_clone;
                let operands = [("boxes", of(&boxes)), ("scores", of(&scores))];
                self.add("nms", parameters.clone(), operands);
                let operands = [("boxes", boxes), ("scores", scores), ("classes", classes)];
                self.add("batched_nms", parameters, operands);
            }
        }
    }

    fn box_coder(&mut self) {
        let mut draw = Draw::new(3);
        for weights in [[1.0, 1.0, 1.0, 1.0], [10.0, 10.0, 5.0, 5.0]] {
            let sources = rows(&draw.boxes(50, 640.0, 480.0), Kind::Double);
            let targets = rows(&draw.boxes(50, 640.0, 480.0), Kind::Double);
            // Wide enough for sizes to be cut off.
            let deltas = draw.normal(&[50, 3 * 4], Kind::Double) * 4.0 * weights[0];
            let operands = [("sources", sources), ("targets", targets), ("deltas", deltas)];
            self.add("box_coder", json!({"weights": weights}), operands);
        }
    }

    fn matcher(&mut self) {
        let mut draw = Draw::new(4);
        for low_quality in [false, true] {
            for (low, high) in [(0.3, 0.7), (0.5, 0.5)] {
                for objects in [1, 5] {
                    // Multiples of 1/16, many of them 0: ties and exact thresholds.
                    let values: Vec<f32> = (0..objects * 200)
                        .map(|_| (draw.0.between(-1.0, 1.0).max(0.0) * 16.0).floor() as f32 / 16.0)
                        .collect();
                    let iou = Tensor::from_slice(&values).view([objects, 200]);
                    let parameters = json!({"low": low, "high": high, "low_quality": low_quality});
                    self.add("matcher", parameters, [("iou", iou)]);
                }
            }
        }
    }

    fn anchors(&mut self) {
        let sizes: Vec<[f64; 1]> = [32.0, 64.0, 128.0, 256.0, 512.0].map(|size| [size]).to_vec();
        let maps = [[25, 34], [13, 17], [7, 9], [4, 5], [2, 3]];
        let ratios = [0.5, 1.0, 2.0];
        let parameters =
            json!({"sizes": sizes, "ratios": ratios, "image": [100, 136], "maps": maps});
        self.add("anchors", parameters, []);
        // Half of 33 lies between two pixels.
        let sizes = [[16.0, 24.0, 33.0]];
        let parameters = json!({"sizes": sizes, "ratios": [0.3, 1.0, 1.7], "image": [64, 96],
                                "maps": [[4, 6]]});
        self.add("anchors", parameters, []);
    }

    fn boxes(&mut self) {
        let mut draw = Draw::new(5);
        for kind in [Kind::Double, Kind::Float] {
            let mut some = draw.boxes(40, 60.0, 50.0);
            some.extend([[3.0, 3.0, 3.0, 3.0], [5.0, 5.0, 5.0, 9.0], [-9.0, -9.0, 99.0, 99.0]]);
            let mut others = draw.boxes(30, 60.0, 50.0);
            others.extend([[3.0, 3.0, 3.0, 3.0], [80.0, 80.0, 90.0, 90.0]]);
            let operands = [("some", rows(&some, kind)), ("others", rows(&others, kind))];
            self.add("boxes", json!({"size": [45, 55], "shortest": 4.0}), operands);
        }
    }

    fn paste(&mut self) {
        let mut draw = Draw::new(6);
        for side in [28, 5] {
            let mut boxes = draw.boxes(12, 50.0, 40.0);
            boxes.extend([
                [10.0, 10.0, 11.0, 11.0],   // a pixel
                [0.0, 0.0, 50.0, 40.0],     // the image
                [-20.5, -7.25, 9.75, 90.0], // beyond it
                [20.3, 5.0, 20.4, 30.0],    // hardly any width
            ]);
            let masks = draw.smooth_masks(boxes.len() as i64, side);
            // torchvision's indices turn negative for boxes outside the image, and
            // the lookup divides by a width of zero.
            let size = json!({"size": [40, 50]});
            let of = Tensor::shallow_clone;
            let boxes = rows(&boxes, Kind::Float);
            self.add(
                "paste_torchvision",
                size.clone(),
                [("masks", of(&masks)), ("boxes", of(&boxes))],
            );
            self.add("paste_looked_up", size, [("masks", masks), ("boxes", boxes)]);
        }
        let boxes = rows(&[[7.0, 7.0, 7.0, 20.0], [3.0, 3.0, 30.0, 30.0]], Kind::Float);
        let masks = draw.smooth_masks(2, 7);
        self.add(
            "paste_torchvision",
            json!({"size": [40, 50]}),
            [("masks", masks), ("boxes", boxes)],
        );
    }

    fn bitmaps(&mut self) {
        let mut draw = Draw::new(7);
        for side in [28, 7] {
            let mut boxes = draw.boxes(10, 60.0, 45.0);
            boxes.extend([
                [10.0, 10.0, 11.0, 11.0],
                [0.0, 0.0, 60.0, 45.0],
                [55.0, 40.0, 70.0, 50.0],
            ]);
            let masks = draw.smooth_masks(boxes.len() as i64, 60).slice(2, 0, 45, 1).squeeze_dim(1);
            let masks = masks.ge(0.5).to_kind(Kind::Uint8);
            let operands = [("masks", masks), ("boxes", rows(&boxes, Kind::Float))];
            self.add("bitmaps", json!({"side": side, "resized": [33, 91]}), operands);
        }
    }

    fn polygons(&mut self) {
        let mut draw = Draw::new(8);
        for side in [28, 56] {
            let boxes = draw.boxes(12, 60.0, 45.0);
            let polygons: Vec<Vec<Vec<f64>>> = boxes
                .iter()
                .map(|area| (0..1 + draw.0.below(3)).map(|_| draw.polygon(area)).collect())
                .collect();
            let parameters = json!({"polygons": polygons, "size": [45, 60], "side": side});
            self.add("polygons", parameters, [("boxes", rows(&boxes, Kind::Float))]);
        }
    }
}

/// Regions that break careless code, in pixels of an image at 1/`scale`.
///
/// torchvision refuses to allocate for a region with one side swapped where the
/// number of samples is `adaptive` and the region is taken as it is.
fn degenerate(scale: f64, adaptive: bool) -> Vec<[f64; 4]> {
    let mut cells = vec![
        [4.0, 4.0, 4.0, 4.0],         // no area
        [4.0, 2.0, 4.0, 9.0],         // no width
        [3.0, 3.0, 4.0, 4.0],         // one cell
        [2.5, 2.5, 2.75, 2.625],      // less than one
        [-30.0, -30.0, -20.0, -20.0], // outside
        [20.0, 1.0, 29.0, 5.0],
        [-6.0, -5.0, 30.0, 40.0], // around the whole map
        [-3.0, 8.0, 5.0, 19.0],   // across its border
        [12.0, 10.0, 13.0, 11.0], // its last cell
        [0.0, 0.0, 13.0, 11.0],   // all of it
        [-300.0, -200.0, 500.0, 700.0],
        [9.0, 9.0, 2.0, 3.0], // both sides swapped
    ];
    if !adaptive {
        cells.extend([[9.0, 2.0, 3.0, 8.0], [1.0, 9.0, 5.0, 2.0]]);
    }
    cells.into_iter().map(|roi| roi.map(|side: f64| side / scale)).collect()
}

/// Random operands.
struct Draw(Rng);

impl Draw {
    fn new(stream: u64) -> Self {
        Draw(Rng::new(41, &[stream]))
    }

    /// Boxes around points of an image, of all sizes, some reaching beyond it.
    fn boxes(&mut self, count: usize, width: f64, height: f64) -> Vec<[f64; 4]> {
        let mut one = || {
            let (x, y) = (self.0.uniform() * width, self.0.uniform() * height);
            let half = |rng: &mut Rng, side: f64| side * rng.between(-5.0, -1.0).exp2();
            let (w, h) = (half(&mut self.0, width), half(&mut self.0, height));
            [x - w, y - h, x + w, y + h]
        };
        (0..count).map(|_| one()).collect()
    }

    fn normal(&mut self, shape: &[i64], kind: Kind) -> Tensor {
        let count: i64 = shape.iter().product();
        // Box and Muller.
        let one = |rng: &mut Rng| {
            let radius = (-2.0 * (1.0 - rng.uniform()).ln()).sqrt();
            radius * (std::f64::consts::TAU * rng.uniform()).cos()
        };
        let values: Vec<f64> = (0..count).map(|_| one(&mut self.0)).collect();
        Tensor::from_slice(&values).view(shape).to_kind(kind)
    }

    /// `[N, 1, side, side]`: probabilities with a blob in the middle.
    fn smooth_masks(&mut self, count: i64, side: i64) -> Tensor {
        let coarse = self.normal(&[count, 1, 4, 4], Kind::Float) + 0.7;
        coarse.upsample_bilinear2d([side, side], false, None, None).sigmoid()
    }

    /// Three to nine corners in and around a box.
    fn polygon(&mut self, area: &[f64; 4]) -> Vec<f64> {
        let corners = 3 + self.0.below(7);
        let mut within = |low: f64, high: f64| low + (high - low) * self.0.between(-0.1, 1.1);
        (0..corners).flat_map(|_| [within(area[0], area[2]), within(area[1], area[3])]).collect()
    }
}

fn rows(boxes: &[[f64; 4]], kind: Kind) -> Tensor {
    Tensor::from_slice(&boxes.concat()).view([-1, 4]).to_kind(kind)
}

/// The bitmaps of `[N, H, W]`.
pub fn bitmaps_of(masks: &Tensor) -> Vec<Bitmap> {
    let (_, height, width) = masks.size3().unwrap();
    let (height, width) = (height as usize, width as usize);
    let pixels = Vec::<u8>::try_from(masks.flatten(0, -1)).unwrap();
    let one = |pixels: &[u8]| Bitmap { height, width, pixels: pixels.to_vec() };
    pixels.chunks_exact(height * width).map(one).collect()
}
