//! What there is to check.

pub mod bench;
pub mod distributed;
pub mod layers;
pub mod models;
pub mod programs;
pub mod resume;
pub mod subject;
pub mod synchronisations;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use tch::Device;

use crate::cli::Places;
use crate::facts::DeviceKind;
use crate::recorder::Recorder;

/// What every section is told.
#[derive(Debug)]
pub struct Setting {
    /// Where the checks run.
    pub device: Device,
    /// The same for the programs' command lines.
    pub kind: DeviceKind,
    /// An empty folder for what they make.
    pub work: PathBuf,
    /// Programs and scripts.
    pub places: Places,
}

/// A group of checks that runs in a process of its own.
#[derive(Debug)]
pub struct Section {
    /// On the command line and in the report.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// The time it may take, in seconds. All together take less than eight minutes.
    pub limit_s: u64,
    /// Whether float32 is to be computed with all of its bits.
    pub exact: bool,
    /// The checks.
    pub run: fn(&Setting, &mut Recorder) -> Result<()>,
}

/// All of them, in the order in which they run: what others are built of comes first.
pub const SECTIONS: [Section; 7] = [
    Section {
        name: "layers",
        what: "every layer, packed and on the grid, against the processor in float64",
        limit_s: 30,
        exact: true,
        run: layers::run,
    },
    Section {
        name: "models",
        what: "every model, packed and on the grid, against the processor in float64",
        limit_s: 110,
        exact: true,
        run: models::run,
    },
    Section {
        name: "programs",
        what: "three training steps of each program against the processor's",
        limit_s: 110,
        exact: false,
        run: programs::run,
    },
    Section {
        name: "resume",
        what: "a run that is killed and goes on, against one that is not",
        limit_s: 45,
        exact: false,
        run: resume::run,
    },
    Section {
        name: "distributed",
        what: "a process for each device: group, gradients, shared batch norm",
        limit_s: 30,
        exact: false,
        run: distributed::run,
    },
    Section {
        name: "synchronisations",
        what: "how often a step waits for its device",
        limit_s: 20,
        exact: false,
        run: synchronisations::run,
    },
    Section {
        name: "bench",
        what: "SparK steps against eager PyTorch, masked after every layer",
        limit_s: 130,
        exact: false,
        run: bench::run,
    },
];

/// Those of these names, in their own order; all if there are none.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Section>> {
    for name in names {
        let all = SECTIONS.each_ref().map(|section| section.name);
        ensure!(
            all.contains(&name.as_str()),
            "--only names {name:?}, but the sections are {}",
            all.join(", ")
        );
    }
    let wanted =
        |section: &&Section| names.is_empty() || names.iter().any(|name| name == section.name);
    Ok(SECTIONS.iter().filter(wanted).collect())
}

/// Why what needs a CUDA device is left out on a processor.
pub const NEEDS_CUDA: &str = "needs CUDA";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sections_together_take_less_than_eight_minutes() {
        assert!(SECTIONS.iter().map(|section| section.limit_s).sum::<u64>() < 8 * 60);
    }

    #[test]
    fn sections_are_chosen_by_name() {
        let names = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let names = chosen(&words)?.iter().map(|section| section.name).collect::<Vec<_>>();
            Ok::<_, anyhow::Error>(names.join(" "))
        };
        assert_eq!(names(&["bench", "layers"]).unwrap(), "layers bench");
        assert_eq!(names(&[]).unwrap().split(' ').count(), SECTIONS.len());
        let error = names(&["layer"]).unwrap_err().to_string();
        assert!(
            error.starts_with("--only names \"layer\", but the sections are layers,"),
            "{error}"
        );
    }
}
