//! What is compared, and for how long.

use std::ops::Bound::Excluded;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use engine::device::parse_device;
use engine::outputs::lies_in;
use engine::remote::is_name;
use engine::run_dir::display_path;
use engine::settings;
use engine::settings::{Settings as _, at_least, within};

use super::plan::LEAST_SEEDS;

settings! {
    /// Settings of a comparison; each is a flag of `pretrain compare`.
    pub struct CompareSettings {
        /// Unlabelled images to pretrain on: a folder at any depth, a text list of files, tar
        /// shards ({000..009})
        #[arg(value_name = "PATH")]
        data: PathBuf;
        /// Labelled images: train/CLASS/… and val/CLASS/…, or in COCO's format train.json and
        /// val.json with a folder images, or annotations/instances_{train,val}*.json
        #[arg(value_name = "DIR")]
        labelled: PathBuf;
        /// Folder for the runs, the table and the picture
        #[arg(short, value_name = "DIR")]
        output: PathBuf;
        /// Minutes that everything may take together
        #[arg(value_name = "N")]
        minutes: f64 = 60.0, within((Excluded(0.0), Excluded(1e7)), "(0, 10 000 000)");
        /// Shares of the labels to fine-tune with
        #[arg(value_name = "SHARE,SHARE", value_delimiter = ',')]
        shares: Vec<f64> = vec![0.1, 0.3, 1.0];
        /// Fine-tunings of each kind, each with a seed of its own
        #[arg(value_name = "N")]
        seeds: u64 = 3, at_least(LEAST_SEEDS);

        /// Epochs of pretraining at most, if the time allows
        #[arg(value_name = "N", help_heading = "Runs")]
        max_pretrain_epochs: u64 = 1600, at_least(1);
        /// Epochs of fine-tuning with the largest share at most
        #[arg(value_name = "N", help_heading = "Runs")]
        max_epochs: u64 = 100, at_least(1);
        /// Model of all runs; the preset's if not given
        #[arg(help_heading = "Runs")]
        model: Option<String>;
        /// Preset of all programs, demo or small-data or another that they share; on a processor
        /// demo and on a GPU small-data, if not given
        #[arg(help_heading = "Runs")]
        preset: Option<String>;
        /// More flags of `pretrain train`, in one word
        #[arg(value_name = "FLAGS", allow_hyphen_values = true, help_heading = "Runs")]
        pretrain: String;
        /// More flags of `classify train` or `detect train`, in one word
        #[arg(value_name = "FLAGS", allow_hyphen_values = true, help_heading = "Runs")]
        finetune: String;
        /// Keep the checkpoints of finished fine-tunings, too, and not only their exported weights
        #[arg(help_heading = "Runs")]
        keep_checkpoints: bool = false;

        /// auto, cpu, cuda or cuda:N
        #[arg(help_heading = "Execution")]
        device: String = "auto".into();
        /// Threads of CPU arithmetic, 0 for every core
        #[arg(value_name = "N", help_heading = "Execution")]
        threads: usize = 0;
        /// Threads that read images, 0 for as many as cores and at most 16
        #[arg(value_name = "N", help_heading = "Execution")]
        workers: usize = 0;
    }
}

/// Flags that the comparison itself sets, by program.
const OWN_FLAGS: [&str; 22] = [
    "data",
    "train-data",
    "val-data",
    "train-annotations",
    "train-images",
    "val-annotations",
    "val-images",
    "output",
    "seed",
    "seeds",
    "epochs",
    "ep",
    "iterations",
    "weights",
    "init-weights",
    "backbone-weights",
    "resume",
    "overwrite",
    "preset",
    "dump-config",
    "device",
    "model",
];

impl CompareSettings {
    /// Holds all to their rules; paths become absolute, so that the comparison goes on from
    /// whatever folder.
    ///
    /// # Errors
    /// The first setting that breaks a rule, with its value and the rule.
    pub fn resolve(mut self) -> Result<Self> {
        for (flag, what, path) in [
            ("data", "images to pretrain on", &self.data),
            ("labelled", "labelled images", &self.labelled),
            ("output", "folder to write to", &self.output),
        ] {
            ensure!(!path.as_os_str().is_empty(), "no {what}: name one with --{flag}");
        }
        self.check_each()?;
        parse_device(&self.device)?;
        self.shares.sort_by(f64::total_cmp);
        ensure!(!self.shares.is_empty(), "shares is empty, but at least one is needed");
        for pair in self.shares.windows(2) {
            ensure!(pair[0] < pair[1], "shares has {} twice, but once is enough", pair[0]);
        }
        for share in &self.shares {
            let fits = *share > 0.0 && *share <= 1.0;
            ensure!(
                fits,
                "shares has {share}, but each must be in (0, 1]: 0.1 is 10 % of the labels"
            );
        }
        for (name, flags) in [("pretrain", &self.pretrain), ("finetune", &self.finetune)] {
            check_flags(name, &split(name, flags)?)?;
        }
        for (flag, path) in [("labelled", &self.labelled), ("output", &self.output)] {
            ensure!(
                !is_name(path),
                "{flag} is {}, but it must be a folder of this machine",
                path.display()
            );
        }
        let here = [&mut self.data, &mut self.labelled, &mut self.output];
        for path in here.into_iter().filter(|path| !is_name(path)) {
            *path = std::path::absolute(&*path)
                .with_context(|| format!("cannot find {}", path.display()))?;
        }
        // A file's path, too.
        if let Some(model) = self.model.as_mut().filter(|model| Path::new(model).is_file()) {
            *model = std::path::absolute(&*model)?.to_string_lossy().into_owned();
        }
        self.check_output()?;
        Ok(self)
    }

    /// Runs within the data would be found as data.
    fn check_output(&self) -> Result<()> {
        for (flag, folder) in [("data", &self.data), ("labelled", &self.labelled)] {
            let inside = folder.is_dir() && lies_in(&self.output, folder);
            ensure!(
                !inside,
                "--output {} lies in --{flag} {}: pictures of the runs would be taken for data",
                display_path(&self.output),
                display_path(folder)
            );
        }
        Ok(())
    }

    /// The preset of all programs.
    ///
    /// # Errors
    /// A device that is not there.
    pub fn preset(&self) -> Result<String> {
        let usual = if parse_device(&self.device)?.is_cuda() { "small-data" } else { "demo" };
        Ok(self.preset.clone().unwrap_or_else(|| usual.into()))
    }

    /// The flags that were given for `pretrain train` and for fine-tuning.
    ///
    /// # Errors
    /// A quotation that does not end.
    pub fn flags(&self) -> Result<[Vec<String>; 2]> {
        Ok([split("pretrain", &self.pretrain)?, split("finetune", &self.finetune)?])
    }

    /// Whether `other` asks for the same runs: where they lie and how many threads compute them
    /// does not matter.
    pub fn same_runs(&self, other: &Self) -> Vec<String> {
        let mut differences = engine::settings::differences(self, other);
        let free = ["output:", "threads:", "workers:", "keep-checkpoints:"];
        differences.retain(|line| !free.iter().any(|name| line.starts_with(name)));
        differences
    }
}

/// Words as a shell splits them.
fn split(name: &str, flags: &str) -> Result<Vec<String>> {
    let words = shlex::split(flags);
    words.with_context(|| format!("{name} is {flags:?}, but a quotation in it does not end"))
}

fn check_flags(name: &str, words: &[String]) -> Result<()> {
    for word in words {
        let Some(flag) = word.strip_prefix("--") else { continue };
        let flag = flag.split('=').next().unwrap_or_default().replace('_', "-");
        let short = ["-o"].contains(&word.as_str());
        ensure!(
            !short && !OWN_FLAGS.contains(&flag.as_str()),
            "{name} has --{flag}, but the comparison sets that itself: data, lengths and seeds \
             follow from --minutes, --shares and --seeds, model and preset from --model and --preset"
        );
    }
    Ok(())
}

/// The settings of the comparison in the folder `output`.
///
/// # Errors
/// There is none.
pub fn saved(output: &Path) -> Result<toml::Table> {
    let path = output.join(engine::run_dir::CONFIG_FILE);
    ensure!(
        path.is_file(),
        "{} holds no comparison to go on with; without --resume one is begun",
        display_path(output)
    );
    Ok(engine::settings::read_table(&path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(change: impl FnOnce(&mut CompareSettings)) -> Result<CompareSettings> {
        let mut settings = CompareSettings {
            data: "photos".into(),
            labelled: "flowers".into(),
            output: "compared".into(),
            device: "cpu".into(),
            ..CompareSettings::default()
        };
        change(&mut settings);
        settings.resolve()
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let told = |change: fn(&mut CompareSettings)| settings(change).unwrap_err().to_string();
        type Change = fn(&mut CompareSettings);
        let cases: [(Change, &str); 11] = [
            (|s| s.output = "s3://bucket/run".into(), "output is s3://bucket/run, but it must be"),
            (|s| s.data = PathBuf::new(), "no images to pretrain on: name one with --data"),
            (|s| s.minutes = 0.0, "minutes is 0, but it must be in (0"),
            (|s| s.minutes = f64::NAN, "minutes is NaN, but it must be in (0"),
            (|s| s.seeds = 1, "seeds is 1, but it must be at least 2"),
            (|s| s.shares = vec![], "shares is empty"),
            (|s| s.shares = vec![10.0], "shares has 10, but each must be in (0, 1]"),
            (|s| s.shares = vec![0.5, 0.5], "shares has 0.5 twice"),
            (
                |s| s.finetune = "--epochs=3".into(),
                "finetune has --epochs, but the comparison sets",
            ),
            (|s| s.pretrain = "--lr 1 --init_weights x".into(), "pretrain has --init-weights"),
            (|s| s.pretrain = "--a 'b".into(), "a quotation in it does not end"),
        ];
        for (change, part) in cases {
            assert!(told(change).contains(part), "{part}: {}", told(change));
        }
    }

    #[test]
    fn what_is_given_is_brought_into_order() {
        let settings = settings(|s| {
            s.shares = vec![1.0, 0.1];
            s.finetune = "--config 'my file.toml' --base-lr 1e-3".into();
        })
        .unwrap();
        assert_eq!(settings.shares, [0.1, 1.0]);
        assert!(settings.data.is_absolute());
        let stored = "s3://bucket/photos/";
        let remote = self::settings(|s| s.data = stored.into()).unwrap();
        assert_eq!(remote.data, PathBuf::from(stored));
        assert_eq!(settings.preset().unwrap(), "demo");
        let [_, finetune] = settings.flags().unwrap();
        assert_eq!(finetune, ["--config", "my file.toml", "--base-lr", "1e-3"]);
    }

    #[test]
    fn a_folder_within_the_data_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().to_owned();
        let told = settings(|s| {
            s.output = data.join("compared");
            s.data = data;
        });
        assert!(told.unwrap_err().to_string().contains("lies in --data"));
    }
}
