//! `classify export`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use backbone::graph::GraphModel;
use backbone::weights::{StateDict, TimmConfig, timm_classifier};
use clap::Args;
use engine::export::{Card, CardTask, ExportFormat, HubFlags, named_for_timm, write_hub_folder};
use engine::remote::{Output, Wanted, local_with};
use engine::run_dir::{display_path, run_of};
use engine::settings::Settings as _;
use words::counted;

use super::model_flags::ModelFlags;
use crate::classifier::Classifier;
use crate::saved::LoadedModel;

const EXAMPLES: &str = "\
Examples:
  # A folder for timm.create_model('local-dir:flowers', pretrained=True): head and class names, too
  classify export --weights runs/first --output flowers

  # The same with a model card, for hf upload me/flowers flowers-hub
  classify export --weights runs/first --format hub --license mit --repo me/flowers --output flowers-hub

  # torchvision's names
  classify export --weights runs/first --format torchvision --output flowers.pth";

/// Flags of `classify export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    #[command(flatten)]
    model: ModelFlags,
    /// Whose names and file form to write; timm, of a network from a .pt2 file its own, if not given
    #[arg(long, value_enum)]
    format: Option<ExportFormat>,
    /// For --format timm and hub: which of timm's models a network from a .pt2 file is
    #[arg(long, value_name = "NAME")]
    timm_name: Option<String>,
    #[command(flatten)]
    hub: HubFlags,
    /// File (for timm and hub: folder) to write, here or in object storage (s3://bucket/w.pth);
    /// .pth, .pkl or .safetensors decide the form.
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,
}

/// Exports.
pub fn run(args: ExportArgs) -> Result<()> {
    args.hub.check(args.format == Some(ExportFormat::Hub))?;
    let loaded = args.model.load()?;
    let classifier = &loaded.classifier;
    let model = classifier.model();
    let usual = if model.graph().is_some() { ExportFormat::Official } else { ExportFormat::Timm };
    let format = args.format.unwrap_or(usual);
    ensure!(
        format != ExportFormat::Pt2 || model.graph().is_none(),
        "format is pt2, but that is the network as it was exported, without the classifier that was \
         learned: official writes both as a state dict"
    );
    let config = named_for_timm(model, Some(loaded.timm_config()), args.timm_name)?;
    let tensors = match (model.graph(), &config) {
        (Some(graph), Some(config)) if matches!(format, ExportFormat::Timm | ExportFormat::Hub) => {
            with_timms_head(classifier, graph, &config.architecture)?
        }
        _ => classifier.variables(),
    };
    let output = Output::new(&args.output)?;
    let write = |path: &Path, config| format.write(path, model, &tensors, config);
    if format == ExportFormat::Hub {
        let card = card(&loaded, &args.model.weights, config.clone())?;
        write_hub_folder(&output, &args.hub, &card, |folder| Ok(write(folder, config)?))?;
    } else {
        write(output.path(), config)?;
    }
    println!(
        "{} ({} of {}, {}) → {}",
        display_path(&args.model.weights),
        counted(tensors.len(), "tensor"),
        model.name,
        counted(classifier.num_classes(), "class"),
        output.finish()?
    );
    Ok(())
}

/// What the card of a classifier says.
fn card(loaded: &LoadedModel, weights: &Path, config: Option<TimmConfig>) -> Result<Card> {
    let mut facts = vec![("classes".into(), loaded.classifier.num_classes().to_string())];
    if let Some(config) = &loaded.config {
        let data = config.data.file_name().unwrap_or_default().display();
        facts.push(("data".into(), format!("class folders called {data}")));
    }
    if let Some(accuracy) = loaded.accuracy {
        facts.push(("top-1 in its run's validation".into(), format!("{:.2} %", 100.0 * accuracy)));
    }
    let images = config.unwrap_or_else(|| loaded.timm_config());
    let settings = loaded.config.as_ref().map(|config| config.to_table());
    let card = Card::new(loaded.classifier.model(), CardTask::Classification, images);
    Ok(Card { facts, settings, run: run_of(&local_with(weights, Wanted::Best)?), ..card })
}

/// The tensors with the head where timm's `architecture` has its classifier.
fn with_timms_head(
    classifier: &Classifier,
    graph: &GraphModel,
    architecture: &str,
) -> Result<StateDict> {
    let all = classifier.variables().into_iter();
    let (head, mut tensors): (StateDict, StateDict) =
        all.partition(|(name, _)| classifier.is_head(name));
    let name = timm_classifier(architecture, &graph.state_dict(&tensors)?).with_context(|| {
        format!(
            "{} has no classifier of a name that timm uses: export it as official",
            graph.name()
        )
    })?;
    tensors.extend(head.into_iter().map(|(own, tensor)| {
        let parameter = own.rsplit_once('.').map_or(own.as_str(), |(_, parameter)| parameter);
        (format!("{name}.{parameter}"), tensor)
    }));
    Ok(tensors)
}
