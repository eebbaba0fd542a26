//! What the page of `pretrain playground` asks: reconstructions, features, and what becomes of a
//! mask inside the network.

mod subject;

use std::rc::Rc;

use anyhow::{Result, bail, ensure};
use backbone::{FeatureMap, Mode, PatchMask, Size};
use playground::{App, Bits, Picture, Question, data_url};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

pub use self::subject::Subject;
use crate::config::InputSize;
use crate::features::{similarity, stage_colours};
use crate::mask::Masking;
use crate::picture::png;
use crate::prepare::prepare;
use crate::sparsity::{self, MaskLeakage, PositionMap};

/// Plain convolutions of the vanishing mask.
const CONVOLUTIONS: usize = 8;

/// One or two checkpoints behind a page.
#[derive(Debug)]
pub struct Playground {
    subjects: Vec<Subject>,
    size: InputSize,
    /// Patches (rows, columns) of every picture.
    grid: Size,
    /// The picture that was asked about last, as each subject takes it `[1, C, H, W]`.
    prepared: Option<(u64, Vec<Tensor>)>,
    /// The features that were asked for last.
    features: Option<Features>,
}

/// A network's features of one picture.
#[derive(Debug)]
struct Features {
    of: FeaturesOf,
    /// `[C, h, w]` a stage, finest first.
    stages: Vec<Tensor>,
    /// Bool `[h, w]` a stage, where only visible patches were fed.
    valid: Option<Vec<Tensor>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FeaturesOf {
    picture: u64,
    subject: usize,
    /// None: of the whole picture.
    visible: Option<Bits>,
}

impl Playground {
    /// Pictures have `size`; if it is not given, that of the first subject.
    ///
    /// # Errors
    /// A size that does not fit, or subjects whose masks cannot be the same.
    pub fn new(subjects: Vec<Subject>, size: Option<InputSize>) -> Result<Self> {
        let Some(first) = subjects.first() else { bail!("there is no checkpoint to look at") };
        let size = size.unwrap_or(first.config.input_size);
        let grid = first.patch_grid(size)?;
        for other in &subjects[1..] {
            let (rows, cols) = other.patch_grid(size)?;
            ensure!(
                (rows, cols) == grid,
                "at {size} pixels {} is masked by {rows}×{cols} patches, but {} by {}×{}: they \
                 cannot be compared under one mask",
                other.name,
                first.name,
                grid.0,
                grid.1
            );
        }
        Ok(Self { subjects, size, grid, prepared: None, features: None })
    }

    fn total(&self) -> usize {
        (self.grid.0 * self.grid.1) as usize
    }

    fn subject(&self, question: &Question) -> Result<(usize, &Subject)> {
        let index: usize = question.field("model")?;
        let subject = self.subjects.get(index);
        subject.map_or_else(|| bail!("there is no model {index}"), |subject| Ok((index, subject)))
    }

    /// `picture` as each subject takes it.
    fn prepare(&mut self, picture: &Picture) -> Result<&[Tensor]> {
        if self.prepared.as_ref().is_none_or(|(id, _)| *id != picture.id) {
            let (bytes, name) = picture.read()?;
            let ready = |subject: &Subject| {
                let image = prepare(name, &bytes, &subject.config, self.size)?;
                Ok(image.unsqueeze(0).to_device(subject.device))
            };
            let images = self.subjects.iter().map(ready).collect::<Result<Vec<Tensor>>>()?;
            self.prepared = Some((picture.id, images));
        }
        Ok(self.prepared.as_ref().map_or(&[], |(_, images)| images))
    }

    /// The visible patches that `question` has.
    fn visible(&self, question: &Question) -> Result<Option<Bits>> {
        let letters: Option<String> = question.field("visible")?;
        letters.map(|letters| Bits::parse(&letters, self.total())).transpose()
    }

    /// The mask that leaves these patches visible.
    fn mask(&self, visible: &Bits, device: Device) -> Result<Rc<PatchMask>> {
        let chosen = (0i64..).zip(&visible.0).filter(|(_, on)| **on);
        let chosen: Vec<i64> = chosen.map(|(index, _)| index).collect();
        ensure!(
            !chosen.is_empty(),
            "all patches are masked, but the encoder needs one that is visible"
        );
        Ok(PatchMask::from_visible(1, self.grid, &chosen, device)?)
    }

    /// A picture as the encoder sees it.
    fn view(&mut self, question: &Question) -> Result<Value> {
        let images = self.prepare(question.picture()?)?;
        let image = images[0].shallow_clone();
        let (png, remark) = self.subjects[0].picture(&image)?;
        Ok(json!({ "picture": data_url("image/png", &png), "remark": remark }))
    }

    /// A mask as `pretrain reconstruct` draws it.
    fn draw(&self, question: &Question) -> Result<Value> {
        let masking =
            Masking::Random { ratio: question.field("ratio")?, seed: question.field("seed")? };
        let mask = masking.mask(1, self.grid, Device::Cpu)?;
        let flags = Vec::<bool>::try_from(mask.active((1, 1)).view([-1]))?;
        Ok(json!({ "visible": Bits(flags).letters() }))
    }

    /// What each subject makes of the visible patches.
    fn reconstruct(&mut self, question: &Question) -> Result<Value> {
        let Some(visible) = self.visible(question)? else { bail!("there is no mask") };
        self.prepare(question.picture()?)?;
        let images = self.prepared.as_ref().map_or(&[][..], |(_, images)| images);
        let mut models = Vec::new();
        for (subject, image) in self.subjects.iter().zip(images) {
            let began = std::time::Instant::now();
            let prediction = subject.predict(image, &self.mask(&visible, image.device())?)?;
            let hidden = prediction.errors.iter().zip(&visible.0).filter(|(_, on)| !**on);
            let hidden: Vec<f64> = hidden.map(|(error, _)| *error).collect();
            let loss = hidden.iter().sum::<f64>() / hidden.len() as f64;
            models.push(json!({
                "prediction": data_url("image/png", &prediction.png),
                "errors": prediction.errors,
                "loss": loss.is_finite().then_some(loss),
                "seconds": began.elapsed().as_secs_f64(),
            }));
        }
        Ok(json!({ "models": models }))
    }

    /// A subject's features of the whole picture, or of its visible patches.
    fn features(&mut self, question: &Question) -> Result<&Features> {
        let picture = question.picture()?;
        let visible = self.visible(question)?;
        let (index, _) = self.subject(question)?;
        let of = FeaturesOf { picture: picture.id, subject: index, visible };
        if self.features.as_ref().is_none_or(|features| features.of != of) {
            let image = self.prepare(picture)?[index].shallow_clone();
            self.features = Some(self.encode(of, &image)?);
        }
        match &self.features {
            Some(features) => Ok(features),
            None => bail!("there are no features"),
        }
    }

    fn encode(&self, of: FeaturesOf, image: &Tensor) -> Result<Features> {
        let _no_grad = tch::no_grad_guard();
        let encoder = self.subjects[of.subject].spark.encoder();
        let mask = of.visible.as_ref().map(|visible| self.mask(visible, image.device()));
        let mask = mask.transpose()?;
        let input = match &mask {
            None => FeatureMap::Grid(image.shallow_clone()),
            Some(mask) => FeatureMap::patches(image, mask)?,
        };
        let maps = encoder.forward(&input, &Mode::eval())?;
        let grids: Vec<Tensor> = maps.iter().map(FeatureMap::to_grid).collect();
        let valid = mask.map(|mask| {
            let of_map = |grid: &Tensor| {
                let size = grid.size();
                let patch = (size[2] / self.grid.0, size[3] / self.grid.1);
                mask.active(patch).squeeze_dim(0).squeeze_dim(0)
            };
            grids.iter().map(of_map).collect()
        });
        Ok(Features { of, stages: grids.iter().map(|grid| grid.get(0)).collect(), valid })
    }

    /// The principal components of every stage as colours.
    fn colours(&mut self, question: &Question) -> Result<Value> {
        let features = self.features(question)?;
        let mut stages = Vec::new();
        for (at, stage) in features.stages.iter().enumerate() {
            let valid = features.valid.as_ref().map(|valid| &valid[at]);
            let colours = stage_colours(stage, valid)?;
            let size = colours.size();
            let bytes = Vec::<u8>::try_from(colours.permute([1, 2, 0]).contiguous().view([-1]))?;
            let picture = image::RgbImage::from_raw(size[2] as u32, size[1] as u32, bytes);
            let Some(picture) = picture else { bail!("the colours are no picture") };
            stages.push(json!({
                "channels": stage.size()[0], "height": size[1], "width": size[2],
                "colours": data_url("image/png", &png(&picture)?),
                "visible": valid.map(letters).transpose()?,
            }));
        }
        Ok(json!({ "stages": stages }))
    }

    /// How alike all positions of every stage are to the one at a place of the picture.
    fn similar(&mut self, question: &Question) -> Result<Value> {
        let (y, x): (f64, f64) = (question.field("y")?, question.field("x")?);
        ensure!(
            (0.0..1.0).contains(&y) && (0.0..1.0).contains(&x),
            "the place is ({y}, {x}), but both must be in [0, 1)"
        );
        let features = self.features(question)?;
        let mut stages = Vec::new();
        for stage in &features.stages {
            let size = stage.size();
            let at = ((y * size[1] as f64) as i64, (x * size[2] as f64) as i64);
            // In steps of a hundredth, which is what colours show.
            let values = (similarity(stage, at)? * 100.0).round().to_kind(Kind::Int64);
            let values = Vec::<i64>::try_from(values.contiguous().view([-1]))?;
            stages.push(json!({ "at": [at.0, at.1], "values": values }));
        }
        Ok(json!({ "stages": stages }))
    }

    /// What becomes of the mask, layer by layer.
    fn leak(&self, question: &Question) -> Result<Value> {
        let Some(visible) = self.visible(question)? else { bail!("there is no mask") };
        let (_, subject) = self.subject(question)?;
        let mask = self.mask(&visible, subject.device)?;
        let encoder = subject.spark.encoder();
        let size = (self.size.height, self.size.width);
        let probe = sparsity::probe(encoder.in_chans(), size, subject.device);
        let finest = encoder.stages().first().map_or(1, |stage| stage.stride);
        let patch = (size.0 / self.grid.0 / finest, size.1 / self.grid.1 / finest);
        let networks = [
            sparsity::of_convolutions(CONVOLUTIONS, patch, &mask)?,
            sparsity::of_backbone(&subject.model, encoder, &probe, &mask)?,
        ];
        Ok(json!({ "networks": networks.iter().map(leakage).collect::<Vec<Value>>() }))
    }
}

impl App for Playground {
    fn about(&self) -> Value {
        let models = self.subjects.iter().map(|subject| {
            let encoder = subject.spark.encoder();
            let stages = encoder.stages().iter().map(|stage| json!({ "stride": stage.stride }));
            json!({
                "name": subject.name,
                "model": subject.model,
                "stages": stages.collect::<Vec<Value>>(),
            })
        });
        json!({
            "models": models.collect::<Vec<Value>>(),
            "size": [self.size.height, self.size.width],
            "grid": [self.grid.0, self.grid.1],
            "ratio": self.subjects[0].config.mask_ratio,
        })
    }

    fn answer(&mut self, question: &Question) -> Result<Value> {
        match question.name.as_str() {
            "view" => self.view(question),
            "mask" => self.draw(question),
            "reconstruct" => self.reconstruct(question),
            "features" => self.colours(question),
            "similar" => self.similar(question),
            "leak" => self.leak(question),
            other => bail!("there is no question {other:?}"),
        }
    }
}

fn letters(flags: &Tensor) -> Result<String> {
    let flags = flags.to_kind(Kind::Bool).to_device(Device::Cpu).contiguous();
    Ok(Bits(Vec::<bool>::try_from(flags.view([-1]))?).letters())
}

fn leakage(network: &MaskLeakage) -> Value {
    let map = |map: &PositionMap| {
        let (rows, cols) = map.size();
        let all = (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col)));
        let active = all.map(|(row, col)| map.is_active(row, col)).collect();
        json!({ "size": [rows, cols], "active": Bits(active).letters(), "share": map.share() })
    };
    let layers = network.layers.iter().map(|layer| {
        json!({ "name": layer.name, "dense": map(&layer.dense), "sparse": map(&layer.sparse) })
    });
    json!({ "title": network.title, "layers": layers.collect::<Vec<Value>>() })
}
