//! What is logged reaches every sink, and files go on where a run does.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::json;
use serde_json::value::RawValue;
use tch::Tensor;

use super::*;
use crate::settings::RunSettings;
use crate::training::{ResumeMode, open_run};

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Recorder(Rc<RefCell<Vec<String>>>);

impl Recorder {
    fn add(&self, line: String) {
        self.0.borrow_mut().push(line);
    }
}

impl LogSink for Recorder {
    fn log_step(&mut self, step: &Step) {
        self.add(format!("step of epoch {}, loss {:?}", step.epoch, step.loss));
    }
    fn log_train(&mut self, record: &TrainRecord) -> Result<()> {
        self.add(format!("train {} {} {:?}", record.step, record.loss, record.grad_norm));
        Ok(())
    }
    fn log_record(&mut self, record: &RawValue) -> Result<()> {
        self.add(format!("record {record}"));
        Ok(())
    }
    fn log_scalar(&mut self, step: u64, tag: &str, value: f64) -> Result<()> {
        if value.is_nan() {
            return Err(Error::data("no number"));
        }
        self.add(format!("scalar {step} {tag} {value}"));
        Ok(())
    }
    fn log_image(&mut self, step: u64, tag: &str, png: &[u8]) -> Result<()> {
        self.add(format!("image {step} {tag} {}", png.len()));
        Ok(())
    }
    fn log_note(&mut self, text: &str) {
        self.add(format!("note {text}"));
    }
    fn skip_time(&mut self) {
        self.add("skip".into());
    }
    fn finish(&mut self) {
        self.add("finish".into());
    }
}

/// A grey PNG picture of 3×2 pixels, all but the header made up.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x03\0\0\0\x02\x08\0\0\0\0rest";

fn log(output: &std::path::Path, start: &ResumeMode, done: u64) -> RunLog {
    let world = ProcessGroup::alone();
    let settings = RunSettings { output: output.to_owned(), ..RunSettings::default() };
    let files = open_run(&world, &settings, start, &json!({ "a": 1 })).unwrap();
    let continued = *start == ResumeMode::Resume;
    let plan = RunPlan { steps_per_epoch: 2, total_steps: 4, done, continued, log_steps: 2 };
    RunLog::new(&world, &files, plan).unwrap()
}

fn step(log: &mut RunLog, step: u64) {
    let losses = vec![("loss", Tensor::from(step as f64))];
    let grad_norm = Some(Tensor::from(0.5));
    let metrics = PendingMetrics { losses, grad_norm, step, indices: Vec::new() };
    let metrics = log.collect(metrics, log.is_due(step)).unwrap();
    let (epoch, waited) = (step.div_ceil(2), Duration::ZERO);
    let info = StepInfo { epoch, images: 8, waited, lr: 0.1, more: &[("weight_decay", 0.2)] };
    log.step(step, &info, &metrics).unwrap();
}

#[test]
fn every_sink_gets_everything_at_the_last_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(&folder.path().join("run"), &ResumeMode::New { overwrite: false }, 0);
    let recorders = [Recorder::default(), Recorder::default()];
    recorders.iter().for_each(|recorder| log.add_sink(Box::new(recorder.clone())));
    log.scalar("val/top1", 0.25).unwrap();
    step(&mut log, 1);
    step(&mut log, 2);
    log.write(&json!({ "step": 2, "top1": 0.5 })).unwrap();
    log.scalar("epoch/loss", 1.5).unwrap();
    log.image("sheet", PNG).unwrap();
    log.note("saved");
    assert!(log.scalar("broken", f64::NAN).is_err(), "a sink's error stops the run");
    log.skip_time();
    log.finish();
    for Recorder(lines) in recorders {
        let expected = [
            "scalar 0 val/top1 0.25",
            "step of epoch 1, loss None",
            "step of epoch 1, loss Some(2.0)",
            "train 2 1.5 Some(0.5)",
            "record {\"step\":2,\"top1\":0.5}",
            "scalar 2 epoch/loss 1.5",
            "image 2 sheet 33",
            "note saved",
            "skip",
            "finish",
        ];
        assert_eq!(*lines.borrow(), expected);
    }
}

#[test]
fn a_continued_run_replaces_the_records_after_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("run");
    let epoch_record = |log: &mut RunLog, step: u64| log.write(&json!({ "step": step })).unwrap();
    let mut first = log(&output, &ResumeMode::New { overwrite: false }, 0);
    (1..=4).for_each(|number| step(&mut first, number));
    epoch_record(&mut first, 4);
    drop(first);
    let mut second = log(&output, &ResumeMode::Resume, 2);
    second.scalar("val/top1", 0.25).unwrap();
    (3..=4).for_each(|number| step(&mut second, number));
    epoch_record(&mut second, 4);
    let metrics = std::fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    let lines: Vec<&str> = metrics.lines().collect();
    let starts = [
        "{\"step\":2,\"epoch\":1.0,\"loss\":1.5,\"lr\":0.1,",
        "{\"step\":4,\"epoch\":2.0,\"loss\":3.5,",
    ];
    assert_eq!(lines.len(), 3, "{metrics}");
    assert!(lines[0].starts_with(starts[0]) && lines[1].starts_with(starts[1]), "{metrics}");
    assert_eq!(lines[2], "{\"step\":4}");
    // TensorBoard: a file of each process, the second with a restart at step 3.
    let restart = b"\x10\x03\x3a\x02\x08\x01";
    let files = std::fs::read_dir(output.join("tensorboard")).unwrap();
    let mut restarts: Vec<bool> = files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .map(|bytes| bytes.windows(restart.len()).any(|window| window == restart))
        .collect();
    restarts.sort_unstable();
    assert_eq!(restarts, [false, true]);
}

#[test]
fn a_process_is_slow_beside_quick_ones_only() {
    assert_eq!(slow_ranks(&[0.01, 0.45, 0.02, 0.3]), [1, 3]);
    assert_eq!(slow_ranks(&[0.5, 0.6, 0.55]), [0usize; 0]);
    assert_eq!(slow_ranks(&[0.0, 0.15]), [0usize; 0]);
    assert_eq!(slow_ranks(&[0.9]), [0usize; 0]);
}
