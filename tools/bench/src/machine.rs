//! What the measurements were made on and with.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::peak::Peak;

/// Packages whose versions are told, where they are installed.
const PACKAGES: [&str; 8] = [
    "torch",
    "timm",
    "torchvision",
    "pillow",
    "lightly",
    "numpy",
    "pycocotools",
    "faster-coco-eval",
];

/// Prints the version of each package named by the arguments, `-` if it is not
/// there.
const VERSIONS: &str = "\
import importlib.metadata as metadata, sys
def version(name):
    try: return metadata.version(name)
    except metadata.PackageNotFoundError: return '-'
print(' '.join(version(name) for name in sys.argv[1:]))";

/// Instruction sets that decide how fast libtorch is: the kernel's name, ours.
const FEATURES: [(&str, &str); 6] = [
    ("avx2", "AVX2"),
    ("avx512f", "AVX-512"),
    ("avx512_vnni", "VNNI"),
    ("avx512_bf16", "AVX-512-BF16"),
    ("amx_tile", "AMX"),
    ("amx_bf16", "AMX-BF16"),
];

/// The machine and the programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Processor, as it calls itself.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Instruction sets.
    pub features: Vec<String>,
    /// Gigabytes of memory.
    pub memory_gb: f64,
    /// libtorch on our side.
    pub libtorch: String,
    /// Python packages on theirs, with versions.
    pub packages: Vec<(String, String)>,
    /// The checkout's commit, with `+` if files were changed since.
    pub commit: Option<String>,
    /// What the processor reaches at most, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<Peak>,
}

impl Machine {
    /// This machine, with the packages of `python`.
    ///
    /// # Errors
    /// `python` does not run.
    pub fn this(python: &Path) -> Result<Self> {
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kilobytes = field(&memory, "MemTotal").and_then(|text| {
            text.split_whitespace().next().and_then(|number| number.parse::<f64>().ok())
        });
        Ok(Self {
            processor: field(&processor, "model name").unwrap_or("unknown").to_owned(),
            cores: data::cores(),
            features: features(field(&processor, "flags").unwrap_or_default()),
            memory_gb: kilobytes.unwrap_or(0.0) * 1024.0 / 1e9,
            libtorch: env!("SPARK_LIBTORCH_VERSION").to_owned(),
            packages: packages(python)?,
            commit: commit(),
            peak: None,
        })
    }

    /// Processor, cores, memory and instruction sets in a line.
    pub fn hardware(&self) -> String {
        format!(
            "{}, {} core{}, {:.0} GB, {}",
            self.processor,
            self.cores,
            if self.cores == 1 { "" } else { "s" },
            self.memory_gb,
            self.features.join(" ")
        )
    }

    /// Commit and versions in a line.
    pub fn software(&self) -> String {
        let commit = self.commit.as_deref().map(|commit| format!("commit {commit}, "));
        let packages = self.packages.iter().map(|(name, version)| format!("{name} {version}"));
        format!(
            "{}libtorch {}; Python packages {}",
            commit.unwrap_or_default(),
            self.libtorch,
            packages.collect::<Vec<_>>().join(", ")
        )
    }
}

/// The value of a line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn features(flags: &str) -> Vec<String> {
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    FEATURES.iter().filter(|(flag, _)| has(flag)).map(|(_, name)| (*name).to_owned()).collect()
}

fn packages(python: &Path) -> Result<Vec<(String, String)>> {
    let output =
        Command::new(python).args(["-c", VERSIONS]).args(PACKAGES).output().with_context(|| {
            format!(
                "{}: run `cargo xtask bench`, or point SPARK_PYTHON to a Python with torch, timm \
                 and torchvision",
                python.display()
            )
        })?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success() && answer.split_whitespace().count() == PACKAGES.len(),
        "{} answered {answer:?}: {}",
        python.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let versions = PACKAGES.iter().zip(answer.split_whitespace());
    Ok(versions
        .filter(|(_, version)| *version != "-")
        .map(|(name, version)| ((*name).to_owned(), version.to_owned()))
        .collect())
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        let output = git.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { commit + "+" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_told_by_name_and_instruction_sets() {
        let text = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2 avx512f\n";
        assert_eq!(field(text, "model name"), Some("A CPU"));
        assert_eq!(features(field(text, "flags").unwrap()), ["AVX2", "AVX-512"]);
        assert_eq!(field(text, "model"), None);
    }

    #[test]
    fn a_python_that_is_not_there_is_named() {
        let error = format!("{:#}", Machine::this(Path::new("/nowhere/python")).unwrap_err());
        assert!(error.starts_with("/nowhere/python: run `cargo xtask bench`"), "{error}");
    }
}
