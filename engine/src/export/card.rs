//! A model card: what a person needs to know of weights, and how to load them.
//! Reference: the hub's documentation, "Model Cards".

use std::path::PathBuf;

use backbone::models::{Family, Model};
use backbone::weights::TimmConfig;
use toml::{Table, Value};

use super::hub::{CURVE, FOUND, HubFlags, PICTURE};

/// What the weights are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CardTask {
    /// An encoder without a head.
    Features,
    /// A classifier.
    Classification,
    /// A detector.
    Detection {
        /// The framework whose names its weights have.
        naming: String,
        /// Whether it finds masks, not boxes alone.
        masks: bool,
    },
}

/// What a card says.
#[derive(Debug, Clone)]
pub struct Card {
    /// timm's name of the model; a detector's own.
    pub model: String,
    /// The kind of names that its weights have.
    pub family: Family,
    /// What the weights are for.
    pub task: CardTask,
    /// What timm is told of images; none for what timm does not have.
    pub images: Option<TimmConfig>,
    /// Lines of the table of facts: what, and its value.
    pub facts: Vec<(String, String)>,
    /// The settings of the run, if they are known.
    pub settings: Option<Table>,
    /// The folder of the run, if it is there.
    pub run: Option<PathBuf>,
}

impl Card {
    /// Of a model that is exported with `images`.
    pub fn new(model: &Model, task: CardTask, images: TimmConfig) -> Self {
        let family = model.family();
        let model = images.architecture.clone();
        let images = Some(images);
        Card { model, family, task, images, facts: Vec::new(), settings: None, run: None }
    }

    /// The text of README.md; `pictures` are those that lie beside it.
    pub(super) fn text(&self, flags: &HubFlags, pictures: &[&str]) -> String {
        let mut text = self.front_matter(flags);
        text += &self.introduction();
        for (name, title, what) in [
            (CURVE, "Loss", "The training loss against step"),
            (
                PICTURE,
                "Reconstructions",
                "Images, what the encoder saw of them, and what was made of it",
            ),
            (FOUND, "Predictions", "What it finds in images of the validation set"),
        ] {
            if pictures.contains(&name) {
                text += &format!("\n## {title}\n\n![{what}]({name})\n");
            }
        }
        text += &self.loading(flags.repo());
        if let Some(settings) = &self.settings {
            let settings = toml::to_string_pretty(&without_folders(settings)).unwrap_or_default();
            text += &format!("\n## Settings\n\n```toml\n{settings}```\n");
        }
        text + CITATION
    }

    fn front_matter(&self, flags: &HubFlags) -> String {
        let (library, pipeline, more) = match &self.task {
            CardTask::Features => {
                ("timm", "image-feature-extraction", "\n- masked-image-modeling\n- self-supervised")
            }
            CardTask::Classification => ("timm", "image-classification", ""),
            CardTask::Detection { masks: true, .. } => {
                ("spark-backbone", "image-segmentation", "\n- object-detection")
            }
            CardTask::Detection { .. } => ("spark-backbone", "object-detection", ""),
        };
        format!(
            "---\nlicense: {}\nlibrary_name: {library}\npipeline_tag: {pipeline}\ntags:\n- \
             {library}\n- {pipeline}\n- spark{more}\n---\n\n",
            flags.license()
        )
    }

    fn introduction(&self) -> String {
        let model = &self.model;
        let what = match &self.task {
            CardTask::Features => format!(
                "# {model}, pretrained with SparK\n\nA {model} that learned to fill in masked \
                 patches of images (SparK, masked pretraining of convolutional networks). It is an \
                 encoder: it gives feature maps, and is to be fine-tuned for a task.\n"
            ),
            CardTask::Classification => {
                format!(
                    "# {model}, a classifier\n\nA {model} of timm, trained to classify images.\n"
                )
            }
            CardTask::Detection { masks, .. } => {
                let found = if *masks { "boxes, classes and masks" } else { "boxes and classes" };
                format!("# {model}\n\nA detector: it finds objects in images, their {found}.\n")
            }
        };
        let mut rows = vec![("model".to_owned(), format!("`{model}`"))];
        if let Some(images) = &self.images {
            let (height, width) = images.input_size;
            let size = format!("{height}×{width} pixels, {} channels", images.in_chans);
            let statistics = format!("{:?}, {:?}", images.mean, images.std);
            rows.extend([("images".into(), size), ("mean, standard deviation".into(), statistics)]);
        }
        rows.extend(self.facts.iter().cloned());
        let mut text = format!("{what}\n| | |\n|---|---|\n");
        for (name, value) in rows {
            text += &format!("| {name} | {} |\n", in_cell(&value));
        }
        text
    }

    /// How each framework that has such a model takes the weights.
    fn loading(&self, repo: &str) -> String {
        let mut text = "\n## Load it\n".to_owned();
        for (title, language, code) in self.ways() {
            let code = code.replace("{repo}", repo).replace("{model}", &self.model);
            text += &format!("\n{title}:\n\n```{language}\n{code}\n```\n");
        }
        text
    }

    /// Title, language and code of each.
    fn ways(&self) -> Vec<(&'static str, &'static str, String)> {
        let export = |program: &str, more: &str| {
            ("bash", format!("{program} export --weights hf:{{repo}} {more}"))
        };
        let shell = |title, (language, code)| (title, language, code);
        let python = |title, code: &str| (title, "python", code.to_owned());
        // A network from a file has names of its own, which other frameworks do not know.
        let is_known = self.family != Family::Custom;
        match &self.task {
            CardTask::Classification => {
                let mut ways = vec![python("timm", TIMM_CLASSES)];
                let theirs = export("classify", "--format torchvision --output weights.pth");
                ways.extend(is_known.then(|| shell("torchvision, by its names", theirs)));
                ways
            }
            CardTask::Detection { naming, .. } => {
                let predict =
                    "detect predict --weights hf:{repo} --output found photos/".to_owned();
                let mut ways = vec![("spark_backbone", "bash", predict)];
                if naming == "torchvision" {
                    let theirs = export("detect", "--output weights.pth");
                    ways.push(shell("torchvision, by its names", theirs));
                } else if self.family == Family::ResNet {
                    let theirs = export("detect", "--output weights.pkl");
                    ways.push(shell("detectron2 (`MODEL.WEIGHTS: weights.pkl`)", theirs));
                }
                ways
            }
            CardTask::Features => {
                let mut ways = vec![python("timm", TIMM_FEATURES)];
                if !is_known {
                    return ways;
                }
                let format = |format: &str, file: &str| {
                    export("pretrain", &format!("--format {format} --output {file}"))
                };
                ways.push(shell("torchvision", format("torchvision", "weights.pth")));
                ways.push(python("and then", TORCHVISION));
                if self.family == Family::ResNet {
                    let theirs = format("detectron2", "weights.pkl");
                    ways.push(shell("detectron2 (`MODEL.WEIGHTS: weights.pkl`)", theirs));
                }
                if self.family != Family::RegNet {
                    ways.push(shell("mmdet, mmpretrain", format("mmdet", "weights.pth")));
                    ways.push(python("and then", MMDET));
                }
                ways.push(python("spark_backbone in Python", PYTHON));
                ways.push(("spark_backbone in C++", "cpp", CPP.to_owned()));
                ways
            }
        }
    }
}

const TIMM_FEATURES: &str = "\
import timm

model = timm.create_model(\"hf-hub:{repo}\", pretrained=True, features_only=True)
maps = model(images)    # [N, C, H, W] of each stage, finest first";
const TIMM_CLASSES: &str = "\
import timm

model = timm.create_model(\"hf-hub:{repo}\", pretrained=True).eval()
names = model.pretrained_cfg[\"label_names\"]
best = [names[i] for i in model(images).argmax(1)]";
const TORCHVISION: &str = "\
model.load_state_dict(torch.load(\"weights.pth\"), strict=False)    # all but the classifier";
const MMDET: &str = "\
init_cfg = dict(type=\"Pretrained\", checkpoint=\"weights.pth\", prefix=\"backbone.\")";
const PYTHON: &str = "\
import spark_backbone

backbone = spark_backbone.Backbone(\"{model}\", \"hf:{repo}\")";
const CPP: &str = "\
#include <spark/backbone.hpp>

spark::Backbone backbone(spark::Options(\"{model}\").weights(\"hf:{repo}\"));";
const CITATION: &str = "
## Reference

Tian et al., \"Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling\", \
ICLR 2023 (arXiv:2301.03580).
";

/// Settings with no more of a path than its last part: where somebody keeps files is nobody's
/// business.
pub fn without_folders(settings: &Table) -> Table {
    let plain = |value: &Value| match value {
        Value::Table(table) => Value::Table(without_folders(table)),
        Value::String(text) if text.contains(['/', '\\']) && !backbone::hub::is_name(text) => {
            let last = text.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next();
            Value::String(last.unwrap_or_default().to_owned())
        }
        other => other.clone(),
    };
    settings.iter().map(|(key, value)| (key.clone(), plain(value))).collect()
}

/// A text that does not end its cell.
fn in_cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(family: Family, task: CardTask) -> Card {
        let images = Some(TimmConfig::imagenet("resnet18"));
        let (facts, settings) = (vec![("loss".into(), "0.5 | 0.6".into())], None);
        Card { model: "resnet18".into(), family, task, images, facts, settings, run: None }
    }

    #[test]
    fn a_card_has_what_its_frameworks_need() {
        let flags = HubFlags::default();
        let text = card(Family::ResNet, CardTask::Features).text(&flags, &[PICTURE]);
        assert!(text.starts_with("---\nlicense: other\nlibrary_name: timm\npipeline_tag: image-f"));
        assert!(text.contains("](reconstruction.png)") && !text.contains("loss.png"));
        assert!(text.contains("| loss | 0.5 \\| 0.6 |"), "{text}");
        for framework in ["hf-hub:OWNER/NAME", "detectron2", "mmdet", "torchvision", "spark::"] {
            assert!(text.contains(framework), "{framework}");
        }
        for (family, absent) in [
            (Family::ConvNeXt, &["detectron2"][..]),
            (Family::RegNet, &["detectron2", "mmdet"]),
            (Family::Custom, &["detectron2", "mmdet", "torchvision", "spark::"]),
        ] {
            let text = card(family, CardTask::Features).text(&flags, &[]);
            for framework in absent {
                assert!(!text.contains(framework), "{family:?} {framework}");
            }
        }
    }

    #[test]
    fn settings_tell_nothing_of_folders() {
        let settings: Table =
            "data = '/home/me/photos/'\nmodel = 'hf:a/b'\n[x]\ny = 'a\\b'\nz = 3".parse().unwrap();
        let expected: Table =
            "data = 'photos'\nmodel = 'hf:a/b'\n[x]\ny = 'b'\nz = 3".parse().unwrap();
        assert_eq!(without_folders(&settings), expected);
    }
}
