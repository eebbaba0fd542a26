//! `pretrain compare`, which starts the programs beside it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use serde_json::Value;
use test_support::{Finished, TINY, assert_says, names, read, words};

/// Comparisons of seconds: what they need is far below their minutes.
const SHORT: &str = "compare --output compared --data photos --model tiny.pt2 --device cpu \
                     --threads 1 --workers 1 --minutes 30 --seeds 2 --max-pretrain-epochs 2 \
                     --max-epochs 2";
const PRETRAIN: &str = "--input-size 64 --decoder-width 32 --batch-size 4 --log-steps 1";
const DETECTOR: &str = include_str!("../../../detection/tests/suite/common/short.toml");

/// Puts all programs in one at `to`, which is the one of that name.
pub fn put_program(to: &Path) {
    let examples = std::env::current_exe().unwrap();
    let examples = examples.parent().unwrap().with_file_name("examples");
    let all = examples.join("programs");
    assert!(all.is_file(), "cargo test -p spark-tests builds {}", all.display());
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    // The temporary folder may lie on another disk.
    std::fs::hard_link(&all, to).or_else(|_| std::fs::copy(&all, to).map(|_| ())).unwrap();
}

/// A folder with photographs and the programs.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(place.path(TINY), include_bytes!("../../support/fixtures/tiny.pt2"))
            .unwrap();
        for number in 0..12 {
            place.picture(&format!("photos/{number}.png"), number as usize % 3, number);
        }
        for name in ["pretrain", "classify", "detect"] {
            place.program(name);
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a program there, which is all of them under this name.
    fn program(&self, name: &str) {
        put_program(&self.path(&format!("bin/{name}")));
    }

    /// A disc of its class's colour.
    fn picture(&self, name: &str, class: usize, seed: u32) {
        let hash = (seed * 31 + class as u32 * 7 + 1).wrapping_mul(2_654_435_761);
        let (cx, cy, radius) = (14 + (hash >> 8) % 20, 14 + (hash >> 16) % 20, 8 + hash % 8);
        let picture = RgbImage::from_fn(72, 68, |x, y| {
            let mut colour = [90 + (x % 7) as u8 * 3, 90 + (y % 5) as u8 * 4, 90];
            if x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) < radius * radius {
                colour[class] = 230;
            }
            Rgb(colour)
        });
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture.save(path).unwrap();
    }

    /// Class folders with so many images to train on, and four to validate with.
    fn with_classes(self, count: u32) -> Self {
        for (class, name) in ["red", "green", "blue"].into_iter().enumerate() {
            for (split, count) in [("train", count), ("val", 4)] {
                for number in 0..count {
                    let seed = number * 2 + u32::from(split == "val");
                    self.picture(&format!("labelled/{split}/{name}/{number}.png"), class, seed);
                }
            }
        }
        self
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path(&format!("bin/{program}")));
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        Finished::from(self.command("pretrain", arguments).output().unwrap())
    }

    fn compare(&self, more: &[&str]) -> Vec<String> {
        let fixed = ["--pretrain", PRETRAIN, "--labelled", "labelled"];
        let all = [words(SHORT), fixed.to_vec(), more.to_vec()].concat();
        all.into_iter().map(str::to_owned).collect()
    }

    fn compared(&self, more: &[&str]) -> Finished {
        let arguments = self.compare(more);
        self.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&read(self.path(name))).unwrap()
    }

    /// Runs that are finished.
    fn finished(&self) -> Vec<String> {
        let Ok(text) = std::fs::read(self.path("compared/compare.json")) else { return Vec::new() };
        let json: Value = serde_json::from_slice(&text).unwrap();
        json["finished"].as_object().unwrap().keys().cloned().collect()
    }
}

const CLASSIFY: [&str; 2] = ["--finetune", "--input-size 32 --batch-size 6"];

#[test]
fn classes_are_compared_and_an_interrupted_comparison_goes_on() {
    let place = Place::new().with_classes(10);
    let arguments = place.compare(&[&CLASSIFY[..], &["--shares", "0.5"]].concat());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();

    // A plan alone trains nothing.
    let planned = place.run(&[&arguments[..], &["--plan"]].concat()).succeeded();
    assert_says(
        &planned.out,
        &["plan: ", "2 × random weights", "with 50 % of the labels, 2 seeds"],
    );
    assert!(place.finished().is_empty() && !place.path("compared/pretraining").exists());
    assert!(!place.path("compared/measured").exists());

    let resume = ["compare", "--output", "compared", "--resume"];
    let mut command = place.command("pretrain", &resume);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while place.finished().len() < 2 {
        assert!(Instant::now() < deadline, "no run was finished: {:?}", place.finished());
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let stopped = Finished::from(child.wait_with_output().unwrap());
    stopped.refused(&["interrupted; what is finished stays", "--output", "--resume"]);
    let (before, first) = (place.finished(), "50-percent-seed0-random");
    assert!(before.len() < 7 && before.contains(&first.to_owned()), "{before:?}");
    let metrics = place.path("compared/runs").join(first).join("metrics.jsonl");
    let written = std::fs::metadata(&metrics).unwrap().modified().unwrap();

    let other = [&resume[..], &["--seeds", "3"]].concat();
    place.run(&other).refused(&["begun with other settings (seeds: 2 → 3)", "another --output"]);
    let done = place.run(&resume).succeeded();
    assert_eq!(std::fs::metadata(&metrics).unwrap().modified().unwrap(), written, "not run again");
    check_classes(&place, &done);

    // All is there: it is only told again.
    let again = place.run(&resume).succeeded();
    assert_eq!(again.out.split("plan: ").nth(1), done.out.split("plan: ").nth(1));
    place.compared(&CLASSIFY).refused(&["a run already", "--resume continues it"]);
}

fn check_classes(place: &Place, done: &Finished) {
    assert_says(&done.out, &["top-1, labels", "50 %, 15 images", "50 %, as much time"]);
    let report = place.json("compared/report.json");
    let result = &report["results"][0];
    let rows = result["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1);
    for row in rows {
        for arm in ["random", "pretrained", "difference"] {
            assert_eq!(row[arm]["values"].as_array().unwrap().len(), 2, "{row}");
        }
        let value = |arm: &str, seed: usize| row[arm]["values"][seed].as_f64().unwrap();
        for seed in 0..2 {
            let difference = value("pretrained", seed) - value("random", seed);
            assert!((value("difference", seed) - difference).abs() < 1e-9, "{row}");
        }
    }
    assert_eq!(result["images_of_validation"], 12);
    // What the report says is what the run itself has written.
    let metrics = read(place.path("compared/runs/50-percent-seed1-pretrained/metrics.jsonl"));
    let metrics = String::from_utf8(metrics).unwrap();
    let mut own = metrics
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["ema_top1"].as_f64());
    let own = 100.0 * own.next_back().unwrap();
    assert!((rows[0]["pretrained"]["values"][1].as_f64().unwrap() - own).abs() < 1e-9);
    let settings = |run: &str| {
        let text =
            String::from_utf8(read(place.path("compared/runs").join(run).join("config.toml")));
        text.unwrap().parse::<toml::Table>().unwrap()
    };
    let random = settings("50-percent-seed1-random");
    let pretrained = settings("50-percent-seed1-pretrained");
    assert!(random.get("backbone-weights").is_none());
    assert!(pretrained["backbone-weights"].as_str().unwrap().ends_with("compared/pretraining"));
    for key in ["seed", "epochs", "train-data", "layer-decay", "base-lr"] {
        assert_eq!(random[key], pretrained[key], "{key}");
    }
    let longer = settings("50-percent-seed0-longer");
    let steps = |settings: &toml::Table| settings["epochs"].as_integer().unwrap();
    assert!(steps(&longer) > steps(&settings("50-percent-seed0-random")));
    // A share has links to images of its own, of each class alike.
    for class in ["red", "green", "blue"] {
        assert_eq!(names(&place.path("compared/labels/50-percent-seed0").join(class)).len(), 5);
    }
    let picture = image::open(place.path("compared/curves.png")).unwrap();
    assert_eq!(picture.height() % 2, 0, "a share, and time");
    // Weights stay, and what is only for resuming does not.
    let run = names(&place.path("compared/runs/50-percent-seed0-random"));
    assert!(
        run.contains(&"export".to_owned()) && !run.contains(&"checkpoints".to_owned()),
        "{run:?}"
    );
    assert!(place.path("compared/pretraining/checkpoints/last.safetensors").exists());
}

#[test]
fn objects_are_compared() {
    let place = Place::new();
    // Large enough to be cut in two.
    for number in 0..2u32 {
        let wave = |x: u32, y: u32| ((x + 2 * y + number * 97) % 256) as u8;
        let photo =
            RgbImage::from_fn(320, 240, |x, y| Rgb([wave(x, y), wave(y, x), wave(3 * x, y)]));
        std::fs::create_dir_all(place.path("large")).unwrap();
        photo.save(place.path(&format!("large/{number}.png"))).unwrap();
    }
    let demo = "make-demo --photos large --output labelled --train 8 --val 3 --size 64 \
                --classes 2 --objects 2";
    Finished::from(place.command("detect", &words(demo)).output().unwrap()).succeeded();
    std::fs::write(place.path("short.toml"), DETECTOR).unwrap();
    let more = ["--finetune", "--config short.toml", "--shares", "0.5"];
    let done = place.compared(&more).succeeded();
    assert_says(&done.out, &["box AP, labels", "mask AP, labels", "50 %, 4 images"]);
    let report = place.json("compared/report.json");
    let metrics: Vec<&Value> =
        report["results"].as_array().unwrap().iter().map(|result| &result["metric"]).collect();
    assert_eq!(metrics, ["box AP", "mask AP"]);
    let labels = place.json("compared/labels/50-percent-seed1.json");
    assert_eq!(labels["images"].as_array().unwrap().len(), 4);
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_runs() {
    let refused = |place: &Place, more: &[&str], parts: &[&str]| {
        place.compared(&[&CLASSIFY[..], more].concat()).refused(parts);
        assert!(!place.path("compared/pretraining").exists());
    };
    let place = Place::new().with_classes(3);
    for (more, part) in [
        (&["--data", "nowhere"][..], "cannot pretrain on --data"),
        (&["--labelled", "photos"], "has neither a folder train nor COCO files"),
        (
            &["--finetune", "--epochs 3"],
            "finetune has --epochs, but the comparison sets that itself",
        ),
        (&["--finetune", "--no-such-flag"], "classify refuses these flags"),
        (&["--output", "photos/compared"], "lies in --data"),
        (&["--shares", "0"], "shares has 0, but each must be in (0, 1]"),
    ] {
        refused(&place, more, &[part]);
    }
    refused(&place, &["--minutes", "0.02"], &["--minutes"]);
    one_image(&place.path("labelled/train/green"));
    refused(&place, &[], &["1 class of 3", "have a single image", "green"]);
    std::fs::remove_dir_all(place.path("labelled/val")).unwrap();
    refused(&place, &[], &["has no validation data", "val/CLASS"]);

    let place = Place::new().with_classes(3);
    std::fs::remove_file(place.path("bin/classify")).unwrap();
    refused(&place, &[], &["bin/classify is not there", "put classify beside pretrain"]);
}

/// Leaves a folder its first image.
fn one_image(folder: &Path) {
    for name in &names(folder)[1..] {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
}
