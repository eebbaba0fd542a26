//! Checkpoints in the first form, which each program wrote in a way of its own.

use std::collections::BTreeMap;
use std::path::Path;

use engine::checkpoint::{CheckpointFile, write_checkpoint};
use serde_json::{Map, Value};

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
}

impl FirstForm {
    /// Rewrites the checkpoint at `path`; its tensors stay.
    pub fn rewrite(&self, path: &Path) {
        rewrite(path, |state| self.state_of(state));
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

fn rewrite(path: &Path, edit: impl FnOnce(Map<String, Value>) -> Map<String, Value>) {
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
