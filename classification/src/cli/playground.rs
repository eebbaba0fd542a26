//! `classify playground`.

use anyhow::{Result, bail};
use clap::Args;
use data::Transform;
use playground::{App, Page, Question, ServeFlags, data_url, jpeg, serve};
use serde_json::{Value, json};
use tch::Tensor;

use super::model_flags::ModelFlags;
use super::predict::prepare;
use crate::inference::Logits;
use crate::saved::LoadedModel;

const EXAMPLES: &str = "\
Examples:
  classify playground --weights runs/first --images photos --open

  # A network's .pt2 file with its classifier in it
  classify playground --weights net.pt2 --classes names.txt --images photos";

const PAGE: Page = Page {
    program: "classify",
    tabs: "",
    body: include_str!("playground/body.html"),
    files: &[("classify.js", include_str!("playground/classify.js"))],
};

/// Flags of `classify playground`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PlaygroundArgs {
    #[command(flatten)]
    model: ModelFlags,
    #[command(flatten)]
    serve: ServeFlags,
}

/// Serves the page until the program is ended.
pub fn run(args: PlaygroundArgs) -> Result<()> {
    let loaded = args.model.load_any()?;
    let name = args.model.weights.display().to_string();
    let names = loaded.names();
    serve(&args.serve, PAGE, &mut Playground { name, loaded, names })
}

/// A classifier behind a page.
struct Playground {
    name: String,
    loaded: LoadedModel<Box<dyn Logits>>,
    names: Vec<String>,
}

impl Playground {
    /// The probability of every class, and the picture as the classifier sees it.
    fn classify(&self, question: &Question) -> Result<Value> {
        let (bytes, name) = question.picture()?.read()?;
        let transform = self.loaded.images.transform()?;
        let image = prepare(name, &bytes, &transform)?;
        let began = std::time::Instant::now();
        let compute = self.loaded.precision.compute();
        let likely = self.loaded.classifier.probabilities(&image.unsqueeze(0), compute)?;
        let seconds = began.elapsed().as_secs_f64();
        let (shares, classes) = likely.get(0).sort(0, true);
        let shares = Vec::<f32>::try_from(shares)?;
        let classes = Vec::<i64>::try_from(classes)?;
        Ok(json!({
            "picture": data_url("image/jpeg", &self.seen(&image, &transform)?),
            "classes": classes,
            "probabilities": shares,
            "seconds": seconds,
        }))
    }

    /// A JPEG of the part that is looked at, as it was before its values were normalised.
    fn seen(&self, image: &Tensor, transform: &impl Transform) -> Result<Vec<u8>> {
        let [channels, height, width] = transform.shape();
        let settings = &self.loaded.images;
        let column = |values: &[f32]| Tensor::from_slice(values).view([-1, 1, 1]);
        let pixels = image * column(&settings.std) + column(&settings.mean);
        let pixels = pixels.nan_to_num(0.0, 1.0, 0.0).clamp(0.0, 1.0);
        let pixels = Vec::<f32>::try_from(pixels.contiguous().view([-1]))?;
        let image = data::Image::new(width, height, channels, data::Pixels::F32(pixels))?;
        jpeg(&image)
    }
}

impl App for Playground {
    fn about(&self) -> Value {
        json!({ "name": self.name, "classes": self.names })
    }

    fn answer(&mut self, question: &Question) -> Result<Value> {
        match question.name.as_str() {
            "classify" => self.classify(question),
            other => bail!("there is no question {other:?}"),
        }
    }
}
