//! The tensors of a checkpoint.

use std::collections::BTreeMap;

use backbone::weights::check_finite;
use tch::Tensor;

use crate::Result;
use crate::graph::GRAPH_SECTION;
use crate::optim::{Ema, Optimizer};

/// Tensors of a checkpoint by section and name, sharing storage with what is trained.
pub struct CheckpointTensors {
    model: BTreeMap<String, Tensor>,
    optimizer: BTreeMap<String, Tensor>,
    averages: Option<BTreeMap<String, Tensor>>,
    graph: Option<BTreeMap<String, Tensor>>,
}

impl CheckpointTensors {
    /// Of a model's variables, what updates them, their averages if there are any, and the network
    /// itself ([`graph_section`](crate::graph::graph_section)) if a file had it.
    pub fn new(
        model: &BTreeMap<String, Tensor>,
        optimizer: &dyn Optimizer,
        averages: Option<&Ema>,
        graph: Option<&BTreeMap<String, Tensor>>,
    ) -> Self {
        let share = |tensors: &BTreeMap<String, Tensor>| {
            tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
        };
        Self {
            model: share(model),
            optimizer: optimizer.state(),
            averages: averages.map(|ema| share(ema.averages())),
            graph: graph.map(share),
        }
    }

    /// Refuses a model, or averages, that compute nothing any more.
    ///
    /// # Errors
    /// [`crate::Error::Backbone`] naming what is not finite.
    pub fn check_finite(&self) -> Result<()> {
        let rule = "the checkpoints before are kept; a lower learning rate or float32 may help";
        check_finite("the model", &self.model, rule)?;
        let averages = self.averages.as_ref();
        Ok(averages.map_or(Ok(()), |ema| check_finite("the averaged model", ema, rule))?)
    }

    /// By section name: `model`, `optimizer` and, where there is one, `ema` and `graph`.
    pub fn named(&self) -> Vec<(&str, &BTreeMap<String, Tensor>)> {
        let mut named = vec![("model", &self.model), ("optimizer", &self.optimizer)];
        named.extend(self.averages.as_ref().map(|averages| ("ema", averages)));
        named.extend(self.graph.as_ref().map(|graph| (GRAPH_SECTION, graph)));
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{CheckpointFile, CheckpointTags};
    use crate::distributed::ProcessGroup;
    use crate::settings::RunSettings;
    use crate::training::{ResumeMode, open_run};

    fn sections(variance: f64, averages: Option<f64>) -> CheckpointTensors {
        let of = |value: f64| BTreeMap::from([("bn1.running_var".into(), Tensor::from(value))]);
        CheckpointTensors {
            model: of(variance),
            optimizer: BTreeMap::new(),
            averages: averages.map(of),
            graph: None,
        }
    }

    #[test]
    fn a_model_that_is_not_finite_is_not_saved_and_the_last_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("run");
        let settings = BTreeMap::from([("seed", 1)]);
        let start = ResumeMode::New { overwrite: false };
        let run = RunSettings { output: output.clone(), ..RunSettings::default() };
        let files = open_run(&ProcessGroup::alone(), &run, &start, &settings).unwrap();
        files.save(CheckpointTags::default(), &sections(1.0, Some(2.0)), &0, 0).unwrap();
        let best = || CheckpointTags { best: true, ..CheckpointTags::default() };
        for (sections, part) in [
            (sections(f64::NAN, None), "the model has values that are not finite, bn1.running_var"),
            (sections(1.0, Some(f64::INFINITY)), "the averaged model has values that are not"),
        ] {
            let message = files.save(best(), &sections, &1, 0).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        let checkpoints = output.join("checkpoints");
        let left: Vec<_> = std::fs::read_dir(&checkpoints).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        let last = CheckpointFile::open(&checkpoints.join("last.safetensors")).unwrap();
        assert_eq!(last.state::<i32>().unwrap(), 0);
    }
}
