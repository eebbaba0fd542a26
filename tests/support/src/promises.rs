//! What the programs promise of every run, whatever they train.

use std::collections::BTreeMap;

use engine::checkpoint::CheckpointFile;
use serde_json::{Map, Value};

use super::processes::apart;
use super::program::{Finished, Workplace, assert_same_bits};

/// Of losses and of gradient norms in proportion, in double precision: sums in another order
/// differ by rounding, which the steps magnify. Seen in pretraining: 1e-15 and 6e-15.
pub const SAME: f64 = 1e-6;

impl Workplace {
    /// Trains on one process as the run `one`, and on each of these numbers of them as a run of
    /// that name: `steps` steps, which all come out the same. `more` is in double precision.
    pub fn comes_out_the_same(&self, counts: &[usize], steps: usize, more: &[&str]) {
        self.train_together(1, "one", more);
        let one = self.curve("one");
        assert_eq!(one.len(), steps);
        for &count in counts {
            let run = count.to_string();
            self.train_together(count, &run, more);
            let (loss, norm) = apart(&one, &self.curve(&run));
            println!("{count} processes: losses {loss:e}, gradient norms {norm:e} apart");
            assert!(loss < SAME && norm < SAME, "{count}: losses {loss:e}, norms {norm:e} apart");
        }
    }

    /// The runs `whole` and `killed`, which is killed after each of these steps, end with the same
    /// bits; those.
    pub fn ends_the_same_when_killed(
        &self,
        export: &str,
        steps: &[u64],
        settings: &str,
    ) -> BTreeMap<String, Vec<u8>> {
        self.train("whole", &words(settings)).succeeded();
        self.train_killed_after("killed", steps, &words(settings));
        let whole = self.bits("whole", export);
        assert_same_bits(&whole, &self.bits("killed", export));
        whole
    }

    /// A run that explodes stops, and says where and what to do.
    pub fn stops_at_a_loss_that_is_not_finite(&self, flags: &str) -> Finished {
        self.train("run", &words(flags)).refused(&[
            "at step",
            "non-finite-step-",
            "the last good checkpoint is",
            "--base-lr",
        ])
    }

    /// With the optimizers that other tests leave out, a run that is killed after a step ends with
    /// the same bits, averages among them.
    pub fn goes_on_with_every_optimizer(&self, export: &str, base_lr: &str, killed_after: u64) {
        for optimizer in ["lamb", "sgd"] {
            let more = ["--optimizer", optimizer, "--ema", "0.9", "--clip-grad", "0.5"];
            let more = [&more[..], &["--base-lr", base_lr, "--checkpoint-steps", "1"]].concat();
            let [whole, killed] = ["whole", "killed"].map(|name| format!("{name}-{optimizer}"));
            self.train(&whole, &more).succeeded();
            self.train_killed_after(&killed, &[killed_after], &more);
            let bits = self.bits(&whole, export);
            assert!(bits.keys().any(|name| name.starts_with("ema.")), "{optimizer}");
            assert_same_bits(&bits, &self.bits(&killed, export));
        }
    }

    /// A run of two steps an epoch that is asked to end says how to go on with the program `name`,
    /// and goes on with other settings. The checkpoint that it left.
    pub fn goes_on_after_termination(&self, name: &str) -> CheckpointFile {
        let finished = self.train_terminated("run", 3, &["--epochs", "200"]);
        let command = format!("{name} train --output run --resume");
        finished.refused(&["interrupted after step", &command]);

        let left = self.checkpoint("run");
        let state: Map<String, Value> = left.state().unwrap();
        let step = state["step"].as_u64().unwrap();
        assert!(step >= 3);
        let epochs = (step / 2 + 1).to_string();
        let more = ["train", "--output", "run", "--resume", "--epochs", &epochs];
        let finished = self.run(&more).succeeded();
        let changed = format!("epochs: 200 → {epochs}");
        assert!(finished.err.contains(&changed), "{}", finished.err);
        left
    }

    /// What `--dump-config` prints of each preset with these flags means the same when it is read.
    pub fn dumps_what_reads_the_same(&self, presets: &[&str], flags: &str) {
        let dump = |more: &[&str]| {
            let more = [&["train", "--dump-config"], more].concat();
            self.run(&more).succeeded().out
        };
        for preset in presets {
            let more = format!("--preset {preset} --data d --output o {flags}");
            let dumped = dump(&words(&more));
            std::fs::write(self.path("dumped.toml"), &dumped).unwrap();
            assert_eq!(dump(&["--config", "dumped.toml"]), dumped, "{preset}");
        }
    }

    pub fn tells_the_nearest_setting(&self) {
        std::fs::write(self.path("a.toml"), "batch-sze = 8").unwrap();
        let part = "batch-sze is 8, but there is no such setting; the nearest is batch-size";
        self.train("run", &["--config", "a.toml"]).refused(&[part]);
    }
}

/// The words of a command line.
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}
