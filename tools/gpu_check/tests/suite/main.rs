//! The program, as far as it goes without a CUDA device.
#![allow(missing_docs)]

use std::process::{Command, Output};

use gpu_check::report::{Report, Status};

fn gpu_check(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gpu-check")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The report of these sections on the processor, none of whose checks fails.
fn report(sections: &str) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("report");
    let path = place.to_str().unwrap();
    let output = gpu_check(&["run", "--device", "cpu", "--only", sections, "--report", path]);
    assert!(output.status.success(), "{}", said(&output));
    let table = std::fs::read_to_string(place.join("report.md")).unwrap();
    let json = std::fs::read_to_string(place.join("report.json")).unwrap();
    let report: Report = serde_json::from_str(&json).unwrap();
    assert!(report.complete && report.count(Status::Failed) == 0, "{table}");
    for section in &report.sections {
        assert!(table.contains(&format!("\n## {}\n", section.name)), "{table}");
        for item in &section.items {
            assert!(table.contains(&format!("| {} |", item.name)), "{table}");
        }
    }
    report
}

#[test]
fn layers_are_compared_on_a_processor_too() {
    let report = report("layers");
    let [section] = &report.sections[..] else { panic!("{report:?}") };
    // Every layer in four types, of which processors are spared one.
    let float16 = section.items.iter().filter(|item| item.name.ends_with(", float16"));
    assert!(float16.clone().count() > 25, "{section:?}");
    assert!(float16.clone().all(|item| item.status == Status::Skipped));
    assert_eq!(section.items.len(), 4 * float16.count());
    let figures = section.items.iter().filter(|item| item.status == Status::Passed);
    for item in figures {
        let tolerance = item.tolerance.as_ref().unwrap();
        assert!(item.figure.unwrap() <= tolerance.most && !tolerance.reason.is_empty());
    }
}

#[test]
fn processes_are_checked_on_a_processor_too() {
    let report = report("distributed");
    let [section] = &report.sections[..] else { panic!("{report:?}") };
    // Three checks of one process, which sends to itself, and three of two.
    assert_eq!(section.items.len(), 6);
    assert!(section.items.iter().all(|item| item.status == Status::Passed));
}

#[test]
fn without_a_device_it_ends_with_a_sentence() {
    if tch::Cuda::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("report");
    let output = gpu_check(&["run", "--report", place.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.starts_with("error: there is no CUDA device here: "), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(said.contains("driver") || said.contains("for processors alone"), "{said}");
    assert!(!place.exists(), "nothing is written");
}

#[test]
fn sections_are_listed_and_others_refused() {
    let output = gpu_check(&["run", "--list"]);
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && listed.lines().count() == 7, "{listed}");
    let output = gpu_check(&["run", "--device", "cpu", "--only", "layer"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("the sections are layers, models"), "{}", said(&output));
}
