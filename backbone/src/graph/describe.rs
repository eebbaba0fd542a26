//! What a graph is, in words.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use words::counted;

use super::lower::StepKind;
use super::model::GraphModel;
use crate::models::Cost;

/// How many refusals are told in full.
const TOLD: usize = 5;

impl GraphModel {
    /// Parameters and multiply-adds of what the stages need, for an image of that size.
    pub fn cost(&self, height: i64, width: i64) -> Cost {
        let network = &self.parts.network;
        let image = network.extents.get(network.layouts[network.image].map_extent().unwrap_or(0));
        let share = (height * width) as f64 / (image.size.0 * image.size.1).max(1) as f64;
        let elements = |id: usize| network.layouts[id].size.iter().skip(1).product::<i64>();
        let mut flops = 0;
        for step in &network.steps {
            let Some(&output) = step.outputs.first() else { continue };
            let per_output = match &step.kind {
                StepKind::Convolution(conv) => {
                    network.layouts[conv.weight].size[1..].iter().product::<i64>()
                }
                StepKind::Linear { weight, .. } => network.layouts[*weight].size[1],
                _ => continue,
            };
            let outputs = elements(output);
            let spatial = network.layouts[output].is_spatial();
            let scaled = if spatial { (outputs as f64 * share) as i64 } else { outputs };
            flops += scaled * per_output;
        }
        Cost { params: self.parameter_count(), flops }
    }

    /// Several lines: stages, parameters, FLOPs, operators by kind, what runs on visible patches,
    /// what on the grid, what draws random numbers, and why it cannot be pretrained if so.
    pub fn describe(&self) -> String {
        let parts = &self.parts;
        let network = &parts.network;
        let image = &network.layouts[network.image].size;
        let (height, width) = (image[2], image[3]);
        let cost = self.cost(height, width);
        let mut text = format!(
            "{}: exported by PyTorch {} for {} of {}×{height}×{width}\n",
            self.name(),
            parts.program.torch_version,
            counted(image[0], "image"),
            image[1]
        );
        for (number, level) in self.levels.levels.iter().enumerate() {
            let module = if level.module.is_empty() { "the network" } else { &level.module };
            let _ = writeln!(
                text,
                "  stage {}: {module}, {}, stride {}",
                number + 1,
                counted(level.channels, "channel"),
                level.stride
            );
        }
        let _ = writeln!(
            text,
            "  {:.1} M parameters and {:.2} G FLOPs up to the last stage",
            cost.params as f64 / 1e6,
            cost.flops as f64 / 1e9
        );
        let kinds = |wanted: &dyn Fn(&StepKind) -> bool| {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for step in network.steps.iter().filter(|step| wanted(&step.kind)) {
                *counts.entry(step.kind.name()).or_default() += 1;
            }
            let words: Vec<String> =
                counts.into_iter().map(|(name, count)| format!("{count} {name}")).collect();
            if words.is_empty() { "none".to_owned() } else { words.join(", ") }
        };
        let draws =
            |kind: &StepKind| matches!(kind, StepKind::DropPath { .. } | StepKind::Dropout { .. });
        let on_grid = |kind: &StepKind| match kind {
            StepKind::OnGrid { .. } | StepKind::Pad { .. } => true,
            StepKind::Convolution(conv) => conv.pad.is_some(),
            _ => false,
        };
        let patches = kinds(&|kind| !draws(kind) && !on_grid(kind));
        let _ = writeln!(text, "  on visible patches: {patches}");
        let _ = writeln!(text, "  through the grid: {}", kinds(&on_grid));
        let _ = writeln!(text, "  random draws: {}", kinds(&draws));
        match self.refusal() {
            None => text.push_str("  can be pretrained\n"),
            Some(refusal) => {
                let _ = writeln!(text, "  cannot be pretrained: {refusal}");
                for refused in self.verdicts.iter().skip(1).take(TOLD - 1) {
                    let node = parts.describe_node(refused.node);
                    let _ = writeln!(text, "    also {node}: {}", refused.reason);
                }
            }
        }
        text
    }
}
