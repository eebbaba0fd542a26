//! Checkpoints in the first form, which each program wrote in a way of its own.

use std::collections::BTreeMap;
use std::path::Path;

use engine::checkpoint::{CheckpointFile, write_checkpoint};
use serde_json::{Map, Value};

use super::program::{Workplace, assert_same_bits, assert_says, records};
use super::promises::words;

/// Rewrites the checkpoint at `path` as one that was saved before an evaluation which never came.
pub fn make_pending(path: &Path) {
    rewrite(path, |mut state| {
        assert_eq!(state.insert("evaluation_pending".into(), true.into()), Some(false.into()));
        state
    });
}

/// How a program wrote its states in the first form.
pub struct FirstForm {
    /// Present and first names in the state; those without a first name were not there.
    pub state: &'static [(&'static str, &'static str)],
    /// Present and first names of settings; those without a first name were not there.
    pub settings: &'static [(&'static str, &'static str)],
    /// What else was different in the settings.
    pub other: fn(&mut Map<String, Value>),
    /// The best checkpoints that a run has.
    pub best: &'static [&'static str],
}

impl FirstForm {
    /// Makes `run` one that ended after its second epoch, with that epoch's checkpoint as the last
    /// and the best, in the first form; their tensors stay.
    pub fn rewrite(&self, work: &Workplace, run: &str) {
        let checkpoint = |name: &str| work.path(&format!("{run}/checkpoints/{name}.safetensors"));
        std::fs::rename(checkpoint("epoch-0002"), checkpoint("last")).unwrap();
        std::fs::remove_dir_all(work.path(run).join("export")).unwrap();
        rewrite(&checkpoint("last"), |state| self.state_of(state));
        for best in self.best {
            std::fs::copy(checkpoint("last"), checkpoint(best)).unwrap();
        }
    }

    /// A run with these settings, made one of the first form, goes on after the step that is told,
    /// without a changed setting, and ends with the same bits and figures.
    pub fn goes_on(
        &self,
        work: &Workplace,
        settings: &str,
        export: &str,
        after: &str,
        figures: &[&str],
    ) {
        let left = || {
            let mut bits = work.bits("run", export);
            if !self.best.is_empty() {
                // The best of the whole run may have been one that is gone.
                bits.remove("export");
            }
            (bits, self.figures(work, figures))
        };
        work.train("run", &words(settings)).succeeded();
        let (bits, numbers) = left();
        self.rewrite(work, "run");
        let told = work.run(&["train", "--output", "run", "--resume"]).succeeded();
        assert_says(&told.err, &[&format!("resuming after step {after}")]);
        assert!(!told.err.contains("changed settings"), "{}", told.err);
        let again = left();
        assert_same_bits(&bits, &again.0);
        assert_eq!(again.1, numbers);
    }

    /// The last checkpoint of `run`, made one of the first form, is one that another run goes on
    /// from.
    pub fn is_continued_elsewhere(work: &Workplace) {
        let other = ["--resume", "run/checkpoints/last.safetensors", "--epochs", "3"];
        let told = work.train("other", &other).succeeded();
        assert_says(&told.err, &["resuming after step 2 of 3"]);
    }

    /// Step and figures of every record, but those of epochs if the form has no loss of them.
    fn figures(&self, work: &Workplace, names: &[&str]) -> Vec<Vec<Option<f64>>> {
        let mut records = records(&work.path("run"));
        if self.state.contains(&("epoch_loss", "")) {
            records.retain(|record| record.get("epoch_loss").is_none());
        }
        let figures = |record: &Value| {
            let names = ["step"].iter().chain(names);
            names.map(|name| record[*name].as_f64()).collect()
        };
        records.iter().map(figures).collect()
    }

    fn state_of(&self, mut state: Map<String, Value>) -> Map<String, Value> {
        let Some(Value::Object(task)) = state.remove("task") else { panic!("no task: {state:?}") };
        let Some(Value::Object(mut config)) = state.remove("config") else { panic!("no config") };
        state.extend(task);
        rename(&mut state, self.state);
        rename(&mut config, self.settings);
        (self.other)(&mut config);
        state.insert("version".into(), 1.into());
        state.insert("config".into(), config.into());
        state
    }
}

/// Edits the state in the checkpoint at `path`; its tensors stay.
pub fn rewrite(path: &Path, edit: impl FnOnce(Map<String, Value>) -> Map<String, Value>) {
    let file = CheckpointFile::open(path).unwrap();
    let names: Vec<String> = file.sections().into_iter().map(str::to_owned).collect();
    let sections: Vec<(&str, BTreeMap<_, _>)> =
        names.iter().map(|name| (name.as_str(), file.section(name).unwrap())).collect();
    let sections: Vec<_> = sections.iter().map(|(name, tensors)| (*name, tensors)).collect();
    write_checkpoint(path, &sections, &edit(file.state().unwrap())).unwrap();
}

fn rename(table: &mut Map<String, Value>, names: &[(&str, &str)]) {
    for (present, first) in names {
        if let Some(value) = table.remove(*present).filter(|_| !first.is_empty()) {
            table.insert((*first).to_owned(), value);
        }
    }
}
