//! Runs that another program is asked to continue.

use std::path::Path;
use std::process::Command;

use test_support::{Finished, assert_says};

use crate::compare::put_program;

const PROGRAMS: [&str; 3] = ["pretrain", "classify", "detect"];

/// A training of `program` in `folder`, with all settings given.
fn train(folder: &Path, program: &str, more: &[&str]) -> Finished {
    let mut command = Command::new(folder.join(program));
    Finished::from(command.current_dir(folder).arg("train").args(more).output().unwrap())
}

#[test]
fn a_run_of_another_program_is_named_with_what_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for owner in PROGRAMS {
        put_program(&at(owner));
        // A run that was ended before its first checkpoint.
        let run = format!("of-{owner}");
        let settings = ["--dump-config", "--preset", "small-data", "--data", "d", "--output", &run];
        let settings = train(folder.path(), owner, &settings).succeeded().out;
        std::fs::create_dir(at(&run)).unwrap();
        std::fs::write(at(&run).join("config.toml"), settings).unwrap();
        std::fs::write(at(&run).join("run.json"), r#"{"format":"spark-backbone run"}"#).unwrap();
    }
    for owner in PROGRAMS {
        let run = format!("of-{owner}");
        for program in PROGRAMS {
            let refused = train(folder.path(), program, &["--output", &run, "--resume"]);
            let refused = refused.refused(&[]).err;
            let is_named = refused.contains(&format!("is a run of `{owner} train`"));
            assert_eq!(is_named, program != owner, "{refused}");
            if is_named {
                let goes_on = format!("`{owner} train --output {}", at(&run).display());
                assert_says(&refused, &[&goes_on, "needs a folder of its own"]);
            }
            let takes_weights = format!("`{program} train --backbone-weights");
            let is_told = is_named && owner == "pretrain";
            assert_eq!(refused.contains(&takes_weights), is_told, "{refused}");
        }
    }
}
