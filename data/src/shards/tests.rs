//! Sets of shards: the same each time, going on, and checked.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use image::{Rgb, RgbImage};
use tempfile::TempDir;

use super::make::WORK;
use super::*;
use crate::{ByteSize, Dataset, DatasetOptions, decode};

/// Of the smallest shards.
fn small() -> ShardSettings {
    ShardSettings { size: ByteSize(100_000), ..ShardSettings::default() }
}

/// Pictures of noise, which compress badly: 30 kB each.
fn photos(names: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (seed, name) in (1u32..).zip(names) {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        noise(seed, 125, 80).save(path).unwrap();
    }
    folder
}

fn noise(seed: u32, width: u32, height: u32) -> RgbImage {
    let hash = |n: u32| {
        (n ^ seed << 20).wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(2_246_822_519)
    };
    RgbImage::from_fn(width, height, |x, y| {
        let hash = hash(y * width + x);
        Rgb([(hash >> 24) as u8, (hash >> 16) as u8, (hash >> 8) as u8])
    })
}

fn options() -> DatasetOptions {
    DatasetOptions { listings: None, ..DatasetOptions::default() }
}

/// Counts, and ends the process's work after some images as a kill does: nothing is tidied up.
#[derive(Default)]
struct Seen(Mutex<(u64, u64, u64)>);

impl Watcher for Seen {
    fn begin(&self, total: u64, done: u64) {
        *self.0.lock().unwrap() = (total, done, 0);
    }

    fn advance(&self, images: u64, _: u64) {
        self.0.lock().unwrap().2 += images;
    }
}

struct Work {
    photos: TempDir,
    out: TempDir,
}

impl Work {
    fn of(names: &[&str]) -> Self {
        Work { photos: photos(names), out: tempfile::tempdir().unwrap() }
    }

    fn labelled() -> Self {
        let names: Vec<String> =
            (0..12).map(|n| format!("{}/{n}.png", ["cat", "dog"][n % 2])).collect();
        Self::of(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn out(&self, name: &str) -> PathBuf {
        self.out.path().join(name)
    }

    fn make_as(&self, out: &str, settings: &ShardSettings, threads: usize) -> Result<Made> {
        let pictures = Pictures::open(self.photos.path(), &options(), LabelsFrom::Auto)?;
        make(
            &pictures,
            &Folder::open(self.out(out)).unwrap(),
            settings,
            0.5,
            threads,
            &Seen::default(),
        )
    }

    fn make(&self, out: &str) -> Made {
        self.make_as(out, &small(), 2).unwrap()
    }

    fn refusal(&self, out: &str, settings: &ShardSettings) -> String {
        self.make_as(out, settings, 2).unwrap_err().to_string()
    }

    fn files(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.out(out)).unwrap();
        entries
            .map(|entry| entry.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap()))
            .collect()
    }

    fn check(&self, out: &str) -> Checked {
        check(&Folder::open(self.out(out)).unwrap(), 3, 2, &Seen::default()).unwrap()
    }

    /// What is wrong, one problem.
    fn problem(&self, out: &str) -> String {
        let problems = self.check(out).problems;
        assert_eq!(problems.len(), 1, "{problems:#?}");
        problems[0].clone()
    }
}

#[test]
fn the_same_images_and_settings_give_the_same_bytes() {
    let work = Work::labelled();
    let summary = work.make_as("one", &small(), 1).unwrap().summary;
    assert_eq!((summary.images, summary.classes, summary.unreadable), (12, 2, 0));
    assert_eq!(summary.shards.len(), 4, "of 30 kB three go into 100 kB");
    work.make_as("many", &small(), 5).unwrap();
    let files = work.files("one");
    assert!(files == work.files("many"));
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names[..3], ["classes.txt", "shard-000000.idx", "shard-000000.tar"]);
    assert_eq!((names[9], names.len()), ("summary.json", 10));
    assert_eq!(files["classes.txt"], b"cat\ndog\n");
    for shard in &summary.shards {
        let bytes = &files[&shard.name];
        assert_eq!((bytes.len() as u64, sha256(bytes)), (shard.bytes, shard.sha256.clone()));
        assert!(shard.bytes <= 100_000, "{}", shard.bytes);
    }
    let checked = work.check("one");
    assert!(checked.problems.is_empty(), "{:?}", checked.problems);
    assert_eq!((checked.shards, checked.images, checked.bytes), (4, 12, summary.bytes));

    // Another order, and that of the names.
    work.make_as("drawn", &ShardSettings { seed: Some(1), ..small() }, 2).unwrap();
    assert!(work.files("drawn")["shard-000000.tar"] != files["shard-000000.tar"]);
    work.make_as("names", &ShardSettings { seed: None, ..small() }, 2).unwrap();
    let set = Dataset::open(work.out("names"), &options()).unwrap();
    assert_eq!(set.name(0), "shard-000000.tar:cat/0.png");
    assert_eq!(set.name(6), "shard-000002.tar:dog/1.png");
}

#[test]
fn our_reader_reads_what_went_in() {
    let work = Work::labelled();
    work.make("set");
    let [photos, set] = [work.photos.path().to_owned(), work.out("set")]
        .map(|path| Dataset::open(path, &options()).unwrap());
    let content = |set: &Dataset| -> BTreeMap<String, Vec<u8>> {
        let name = |index| set.name(index).rsplit(':').next().unwrap().to_owned();
        (0..set.len()).map(|index| (name(index), set.read(index).unwrap())).collect()
    };
    assert!(content(&photos) == content(&set));
    let index = String::from_utf8(fs::read(work.out("set/shard-000000.idx")).unwrap()).unwrap();
    let mut lines = index.lines();
    assert_eq!(lines.next(), Some("v1.2 3"));
    let shard = fs::read(work.out("set/shard-000000.tar")).unwrap();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, from, size, name, "cls", label, "1", _] = words[..] else { panic!("{line}") };
        let [from, size, label] = [from, size, label].map(|word| word.parse::<usize>().unwrap());
        assert!(shard[from..from + size] == fs::read(work.photos.path().join(name)).unwrap());
        assert_eq!(shard[label], if name.starts_with("cat") { b'0' } else { b'1' });
    }
}

#[test]
fn large_pictures_become_smaller_and_others_stay() {
    let work = Work::of(&["small.png"]);
    let large = RgbImage::from_fn(640, 320, |x, y| Rgb([(x / 3) as u8, (y / 2) as u8, 99]));
    large.save(work.photos.path().join("large.png")).unwrap();
    fs::write(work.photos.path().join("broken.png"), b"\x89PNG\r\n\x1a\nno").unwrap();
    let settings = ShardSettings { max_side: Some(160), ..small() };
    let made = work.make_as("set", &settings, 2).unwrap().summary;
    assert_eq!((made.images, made.resized, made.unreadable), (2, 1, 1));
    let list = String::from_utf8(work.files("set").remove("unreadable.txt").unwrap()).unwrap();
    assert!(list.starts_with("broken.png\t") && list.lines().count() == 1, "{list}");

    let set = Dataset::open(work.out("set"), &options()).unwrap();
    let named = |wanted: &str| (0..2).find(|&i| set.name(i).ends_with(wanted)).unwrap();
    let same = fs::read(work.photos.path().join("small.png")).unwrap();
    assert!(set.read(named(":small.png")).unwrap() == same);
    let smaller = set.image(named(":large.jpg")).unwrap();
    assert_eq!((smaller.width(), smaller.height()), (160, 80));
    // Every fourth pixel of a gradient: resizing is exact there, and JPEG of quality 90 is within
    // some levels.
    let crate::Pixels::U8(samples) = smaller.pixels() else { panic!("floats") };
    for (at, pixel) in samples.chunks(3).enumerate() {
        let (x, y) = ((at % 160) as f64 * 4.0 + 1.5, (at / 160) as f64 * 4.0 + 1.5);
        let expected = [x / 3.0, y / 2.0, 99.0];
        for (level, expected) in pixel.iter().zip(expected) {
            assert!((f64::from(*level) - expected).abs() < 8.0, "{pixel:?} is not {expected:?}");
        }
    }
    assert!(work.check("set").problems.is_empty());
}

#[test]
fn what_was_stopped_goes_on() {
    let work = Work::labelled();
    work.make("whole");
    let whole = work.files("whole");
    // As a process leaves it that is killed after two shards, while it writes the third and its
    // index was not there yet.
    work.make("killed");
    let pictures = Pictures::open(work.photos.path(), &options(), LabelsFrom::Auto).unwrap();
    let summary: Summary = serde_json::from_slice(&whole["summary.json"]).unwrap();
    let begun = record::Begun { settings: summary.settings.clone(), listed: pictures.listed() };
    let at = |name: &str| work.out("killed").join(name);
    fs::remove_file(at("summary.json")).unwrap();
    fs::create_dir(at(WORK)).unwrap();
    fs::write(at(&format!("{WORK}/begun.json")), json(&begun)).unwrap();
    for (number, entry) in summary.shards.iter().take(2).enumerate() {
        let record = record::Record {
            entry: entry.clone(),
            resized: 0,
            next: 3 * (number + 1),
            unreadable: Vec::new(),
        };
        fs::write(at(&format!("{WORK}/{number:06}.json")), json(&record)).unwrap();
    }
    let unfinished = check(&Folder::open(work.out("killed")).unwrap(), 3, 1, &Seen::default())
        .unwrap_err()
        .to_string();
    assert!(unfinished.contains("not finished"), "{unfinished}");
    let kept = fs::metadata(at("shard-000001.tar")).unwrap().modified().unwrap();
    fs::remove_file(at("shard-000002.idx")).unwrap();
    fs::write(at("shard-000002.tar"), b"half").unwrap();
    fs::write(at(".shard-000003.tar.77.tmp"), b"less").unwrap();
    let differing = work.refusal("killed", &ShardSettings { seed: Some(3), ..small() });
    assert!(differing.contains("seed (0 there, 3 here)"), "{differing}");

    let made = work.make("killed");
    assert_eq!((made.resumed, made.summary.images), (6, 12));
    assert!(work.files("killed") == whole);
    assert_eq!(fs::metadata(at("shard-000001.tar")).unwrap().modified().unwrap(), kept);
    // And once more there is nothing to do.
    assert_eq!(work.make("killed").resumed, 12);
}

#[test]
fn a_folder_with_something_else_is_left_alone() {
    let work = Work::labelled();
    work.make("set");
    let before = work.files("set");
    let larger = ShardSettings { size: ByteSize(200_000), max_side: Some(64), ..small() };
    let message = work.refusal("set", &larger);
    assert!(message.contains("set: holds shards that differ in max_side (null there, 64 here), size (100000 there, 200000 here)"), "{message}");
    fs::write(work.photos.path().join("cat/new.png"), b"").unwrap();
    let message = work.refusal("set", &small());
    assert!(message.contains("the number of images (12 there, 13 here)"), "{message}");
    assert!(work.files("set") == before);

    fs::create_dir(work.out("notes")).unwrap();
    fs::write(work.out("notes/a.txt"), b"mine").unwrap();
    let message = work.refusal("notes", &small());
    assert!(message.contains("holds \"a.txt\" and is no set of shards"), "{message}");
    assert_eq!(work.files("notes").len(), 1);
}

#[test]
fn settings_out_of_range_are_named() {
    let work = Work::of(&["a.png", "b.png"]);
    for (settings, message) in [
        (
            ShardSettings { size: ByteSize(99_999), ..small() },
            "size is 100.0kB, but at least 100kB",
        ),
        (ShardSettings { quality: 0, ..small() }, "quality is 0, but it goes from 1 to 100"),
        (ShardSettings { max_side: Some(3), ..small() }, "max-side is 3, but at least 16"),
        (
            ShardSettings { max_side: Some(64), channels: 4, ..small() },
            "has 1 or 3 channels and not 4",
        ),
        (ShardSettings { prefix: "a/b".into(), ..small() }, "prefix is \"a/b\", but it is made of"),
    ] {
        let said = work.refusal("set", &settings);
        assert!(said.contains(message), "{said}");
        assert!(!work.out("set").exists());
    }
}

#[test]
fn too_many_unreadable_files_stop_it() {
    let work = Work::of(&["a.png", "b.png"]);
    for name in ["c.png", "d.png", "e.png"] {
        fs::write(work.photos.path().join(name), b"no picture").unwrap();
    }
    let message = work.refusal("set", &small());
    assert!(message.contains("3 of 5 files can't be used, and at most 2"), "{message}");
    assert!(!work.out("set/summary.json").exists());
}

#[test]
fn what_is_wrong_with_a_set_is_found() {
    let work = Work::labelled();
    let damage = |act: &dyn Fn(PathBuf)| {
        let _ = fs::remove_dir_all(work.out("set"));
        work.make("set");
        act(work.out("set"));
        work.problem("set")
    };
    let change = |name: &'static str, change: fn(&mut Vec<u8>)| {
        move |set: PathBuf| {
            let mut bytes = fs::read(set.join(name)).unwrap();
            change(&mut bytes);
            fs::write(set.join(name), bytes).unwrap();
        }
    };
    // The padding behind the last member: nothing but the checksum tells.
    let problem = damage(&change("shard-000001.tar", |bytes| *bytes.last_mut().unwrap() = 1));
    assert!(problem.starts_with("shard-000001.tar: its SHA-256 is "), "{problem}");
    let problem = damage(&|set| fs::remove_file(set.join("shard-000002.tar")).unwrap());
    assert!(problem.starts_with("shard-000002.tar: No such file"), "{problem}");
    let problem = damage(&|set| fs::remove_file(set.join("shard-000002.idx")).unwrap());
    assert_eq!(problem, "shard-000002.idx: not there");
    let problem = damage(&|set| {
        drop(fs::copy(set.join("shard-000000.idx"), set.join("shard-000001.idx")).unwrap())
    });
    assert_eq!(problem, "shard-000001.idx: it is not the index of shard-000001.tar");
    let problem = damage(&|set| {
        drop(fs::copy(set.join("shard-000000.tar"), set.join("shard-000009.tar")).unwrap())
    });
    assert!(
        problem.starts_with("shard-000009.tar: a shard that summary.json does not name"),
        "{problem}"
    );
    let problem = damage(&change("classes.txt", |bytes| bytes.extend(b"emu\n")));
    assert_eq!(problem, "classes.txt: has 3, and summary.json says 2 classes");

    // A cut one: the length, and where it ends.
    let _ = fs::remove_dir_all(work.out("set"));
    work.make("set");
    change("shard-000003.tar", |bytes| bytes.truncate(40_000))(work.out("set"));
    let problems = work.check("set").problems;
    assert!(problems[0].contains("it has 40000 bytes, and summary.json says"), "{problems:?}");
    assert!(problems[1].starts_with("shard-000003.tar: ") && problems.len() == 2, "{problems:?}");
}

#[test]
fn shards_of_others_are_checked_without_a_summary() {
    let work = Work::of(&["a.png", "b.png"]);
    let good = fs::read(work.photos.path().join("a.png")).unwrap();
    assert!(decode("a", &good, 3).is_ok());
    fs::create_dir(work.out("set")).unwrap();
    let file = fs::File::create(work.out("set/x.tar")).unwrap();
    let mut shard = tarball::Tarball::new(file);
    let member =
        |name: &str, bytes: &[u8]| tarball::Member { name: name.into(), bytes: bytes.into() };
    for member in [
        member("a.png", &good),
        member("a.cls", b"7"),
        member("b.png", &good[..500]),
        member("b.txt", b""),
    ] {
        shard.add(&member).unwrap();
    }
    shard.finish().unwrap();
    assert!(work.problem("set").starts_with("x.tar:b.png: "));
    fs::write(work.out("set/classes.txt"), "a\nb\n").unwrap();
    let checked = work.check("set");
    assert_eq!((checked.images, checked.summary), (1, false));
    assert_eq!(
        checked.problems[0],
        "x.tar:a.cls: \"7\" is no class: they have numbers from 0 to 1"
    );
    let nothing = check(&Folder::open(work.out("nothing")).unwrap(), 3, 1, &Seen::default())
        .unwrap_err()
        .to_string();
    assert!(nothing.contains("holds no .tar shards"), "{nothing}");
}
