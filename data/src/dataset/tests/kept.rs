//! Listings and members of shards that were kept.

use std::time::{Duration, SystemTime};

use super::super::cache::{Key, listings_in};
use super::super::evidence::Evidence;
use super::super::listing::Listing;
use super::super::wire::{Reader, Writer};
use super::*;

/// Keeps in `folder` whatever is 20 ms old.
pub(super) fn cache_in(folder: &Path) -> Cache {
    let age = Duration::from_millis(20);
    Cache { folder: Some(folder.to_owned()), relist: false, least: 3, least_members: 1, age }
}

/// A folder to keep things in, and that.
pub(super) fn new_cache() -> (TempDir, Cache) {
    let kept = tempfile::tempdir().unwrap();
    let cache = cache_in(kept.path());
    (kept, cache)
}

/// Waits until what was written is old enough to be kept, by file systems' slow clocks too.
pub(super) fn settle() {
    std::thread::sleep(Duration::from_millis(60));
}

fn open_with(path: &Path, cache: &Cache) -> Dataset {
    Dataset::open_with(path, &with_channels(3), cache, &Alone).unwrap()
}

/// Whether the kept listing of folder `root` would be taken.
fn is_kept(root: &Path, cache: &Cache) -> bool {
    cache.listing(key(root).as_ref(), root).is_some()
}

fn key(root: &Path) -> Option<Key> {
    Key::new("folder", root, Path::new(""))
}

/// Everything about a data set, the number of other files included.
pub(super) fn all_of(dataset: &Dataset) -> String {
    format!("{dataset:?}")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

/// A folder with everything that a listing has, and one that it links to.
fn rich() -> [TempDir; 2] {
    let elsewhere = folder(&["far/z.png", "far/deep/notes.txt", "other/y.png", "other/x.png"]);
    let root = folder(&["a.png", "b/c.jpg", "b/d/e.png", "b/view.npy", "notes.txt", ".git/h.png"]);
    let at = |name: &str| root.path().join(name);
    fs::write(at("b").join(OsStr::from_bytes(b"caf\xe9.jpg")), b"").unwrap();
    write(root.path(), "b/s.tar", &shard(&["in/b.jpg", "in/b.json"]));
    symlink(elsewhere.path().join("far"), at("linked")).unwrap();
    symlink(elsewhere.path().join("far"), elsewhere.path().join("first")).unwrap();
    symlink(elsewhere.path().join("first"), at("chain")).unwrap();
    symlink(root.path(), elsewhere.path().join("back")).unwrap();
    symlink(elsewhere.path().join("back"), at("b/loop")).unwrap();
    symlink(elsewhere.path().join("nowhere"), at("broken.png")).unwrap();
    symlink(elsewhere.path().join("nowhere"), at("broken")).unwrap();
    symlink(at("a.png"), at("same.png")).unwrap();
    symlink("/dev/null", at("null")).unwrap();
    settle();
    [root, elsewhere]
}

#[test]
fn what_was_kept_is_what_a_walk_finds() {
    let [root, _elsewhere] = rich();
    let (kept, cache) = new_cache();
    let walked = open(root.path());
    let names = names(&walked);
    let expected = [
        "a.png",
        "b/c.jpg",
        "b/caf\\xe9.jpg",
        "b/d/e.png",
        "b/s.tar:in/b.jpg",
        "broken.png",
        "chain/z.png",
        "linked/z.png",
        "same.png",
    ];
    assert_eq!(names, expected);
    // notes.txt three times, view.npy, broken, null, b.json.
    assert_eq!(walked.other_files(), 7);

    assert_eq!(all_of(&open_with(root.path(), &cache)), all_of(&walked));
    assert!(is_kept(root.path(), &cache));
    assert_eq!(files(kept.path()).len(), 2, "a listing and the members of shards");
    let before =
        files(kept.path()).iter().map(|f| fs::metadata(f).unwrap().modified().unwrap()).max();
    settle();
    assert_eq!(all_of(&open_with(root.path(), &cache)), all_of(&walked));
    let after =
        files(kept.path()).iter().map(|f| fs::metadata(f).unwrap().modified().unwrap()).max();
    assert_eq!(before, after, "what holds is not written again");
    // By another name of the folder; for arrays, which a listing doesn't depend on.
    let link = kept.path().join("link");
    symlink(root.path(), &link).unwrap();
    assert!(is_kept(&link, &cache));
    assert_eq!(names, super::names(&open_with(&link, &cache)));
    let bands = Dataset::open_with(root.path(), &with_channels(6), &cache, &Alone).unwrap();
    assert_eq!(super::names(&bands), ["b/view.npy"]);
}

#[test]
fn every_change_is_noticed() {
    type Change = fn(root: &Path, elsewhere: &Path);
    fn moved(link: PathBuf, target: PathBuf) {
        fs::remove_file(&link).unwrap();
        symlink(target, link).unwrap();
    }
    let changes: [(&str, Change); 10] = [
        ("renamed", |root, _| fs::rename(root.join("a.png"), root.join("b.png")).unwrap()),
        ("added", |root, _| write(root, "b/d/f.png", b"")),
        ("removed", |root, _| fs::remove_file(root.join("b/d/e.png")).unwrap()),
        ("moved on", |root, _| fs::rename(root.join("b/d/e.png"), root.join("b/e.png")).unwrap()),
        ("another file", |root, _| write(root, "b/more.txt", b"")),
        ("added in a linked folder", |_, elsewhere| write(elsewhere, "far/deep/f.png", b"")),
        ("a changed link", |root, elsewhere| moved(root.join("linked"), elsewhere.join("other"))),
        ("a changed link to a link", |_, elsewhere| {
            moved(elsewhere.join("first"), elsewhere.join("other"));
        }),
        ("a link back up that leads elsewhere", |_, elsewhere| {
            moved(elsewhere.join("back"), elsewhere.join("other"));
        }),
        ("a link to nowhere that leads to a folder", |_, elsewhere| {
            write(elsewhere, "nowhere/new.png", b"");
        }),
    ];
    for (name, change) in changes {
        let [root, elsewhere] = rich();
        let (_kept, cache) = new_cache();
        let before = all_of(&open_with(root.path(), &cache));
        assert!(is_kept(root.path(), &cache), "{name}");
        change(root.path(), elsewhere.path());
        assert!(!is_kept(root.path(), &cache), "{name}");
        let walked = all_of(&open(root.path()));
        assert_ne!(walked, before, "{name}");
        assert_eq!(all_of(&open_with(root.path(), &cache)), walked, "{name}");
        settle();
        open_with(root.path(), &cache);
        assert!(is_kept(root.path(), &cache), "{name}: kept again");
        assert_eq!(all_of(&open_with(root.path(), &cache)), walked, "{name}");
    }
}

#[test]
fn a_folder_with_its_old_time_set_again_is_another() {
    let root = folder(&["a/1.png", "a/2.png", "a/3.png"]);
    let (_kept, cache) = new_cache();
    settle();
    open_with(root.path(), &cache);
    assert!(is_kept(root.path(), &cache));
    // As when a second archive of the folder is unpacked over the first.
    let path = root.path().join("a");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    write(root.path(), "a/4.png", b"");
    fs::File::open(&path).unwrap().set_modified(time).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time);
    assert_eq!(open_with(root.path(), &cache).len(), 4);
}

#[test]
fn what_is_young_or_small_is_not_kept() {
    let kept = tempfile::tempdir().unwrap();
    let root = folder(&["a/1.png", "2.png", "notes.txt"]);
    write(root.path(), "s.tar", &shard(&["in/b.jpg"]));
    settle();
    let cache = cache_in(kept.path());
    // Folders and shards that changed within the last hour.
    let hour = Duration::from_secs(3600);
    open_with(root.path(), &Cache { age: hour, ..cache_in(kept.path()) });
    assert!(files(kept.path()).is_empty());
    // One folder that changed just now; a shard is older.
    write(root.path(), "a/3.png", b"");
    open_with(root.path(), &Cache { age: Duration::from_secs(1), ..cache_in(kept.path()) });
    assert!(!is_kept(root.path(), &cache));
    fs::remove_file(root.path().join("s.tar")).unwrap();
    settle();
    // Three files and two folders.
    open_with(root.path(), &Cache { least: 7, ..cache_in(kept.path()) });
    assert!(!is_kept(root.path(), &cache));
    open_with(root.path(), &Cache { least: 6, ..cache_in(kept.path()) });
    assert!(is_kept(root.path(), &cache));
    // One member of one shard.
    write(root.path(), "s.tar", &shard(&["in/b.jpg"]));
    settle();
    let number = files(kept.path()).len();
    open_with(root.path(), &Cache { least_members: 2, ..cache_in(kept.path()) });
    assert_eq!(files(kept.path()).len(), number);
    open_with(root.path(), &cache);
    assert_eq!(files(kept.path()).len(), number + 1);
    // As users have it.
    let defaults = Cache::of(&DatasetOptions::default());
    assert_eq!((defaults.least, defaults.least_members), (10_000, 1_000));
    assert_eq!(defaults.age, Duration::from_secs(2));
    assert!(!defaults.relist);
}

#[test]
fn a_damaged_or_foreign_file_is_written_anew() {
    let [root, _elsewhere] = rich();
    let (kept, cache) = new_cache();
    let walked = all_of(&open_with(root.path(), &cache));
    let files = files(kept.path());
    let whole: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let assert_repaired = |what: &str| {
        assert_eq!(all_of(&open_with(root.path(), &cache)), walked, "{what}");
        for (file, whole) in files.iter().zip(&whole) {
            assert_eq!(&fs::read(file).unwrap(), whole, "{what}");
        }
    };
    for (file, whole) in files.iter().zip(&whole) {
        for place in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            fs::write(file, bytes).unwrap();
            assert_repaired(&format!("byte {place}"));
        }
        for length in [0, 3, 30, whole.len() - 1] {
            fs::write(file, &whole[..length]).unwrap();
            assert_repaired(&format!("{length} bytes"));
        }
    }
    // Each in the other's place; and what was kept of another folder, which would hold.
    fs::write(&files[0], &whole[1]).unwrap();
    fs::write(&files[1], &whole[0]).unwrap();
    assert_repaired("of another kind");
    let (other, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let foreign = cache_in(others.path());
    let key = key(other.path());
    foreign.keep_listing(key.as_ref(), &made_up(), &Evidence::new(), SystemTime::now());
    for file in &files {
        fs::copy(&self::files(others.path())[0], file).unwrap();
        assert_repaired("of another folder");
    }
}

/// A listing of what isn't there.
fn made_up() -> Listing {
    let mut names = Names::default();
    ["x.png", "y.png", "z.png"].iter().for_each(|name| names.push(name.as_bytes()));
    let mut to = Writer::default();
    names.write(&mut to);
    // Pictures.
    (0..3).for_each(|_| to.count(0));
    to.count(5);
    to.count(0);
    // No objects: neither times and sizes nor ETags.
    to.count(0);
    to.count(0);
    Listing::read(&mut Reader::new(&to.bytes)).unwrap()
}

#[test]
fn relisting_does_not_trust_what_was_kept() {
    let root = folder(&["a.png", "b.png", "c.png"]);
    let (kept, cache) = new_cache();
    settle();
    // Evidence of nothing always holds.
    cache.keep_listing(key(root.path()).as_ref(), &made_up(), &Evidence::new(), SystemTime::now());
    let dataset = open_with(root.path(), &cache);
    assert_eq!(names(&dataset), ["x.png", "y.png", "z.png"]);
    assert_eq!(dataset.other_files(), 5);
    let relist = DatasetOptions {
        relist: true,
        listings: Some(kept.path().to_owned()),
        ..Default::default()
    };
    assert!(Cache::of(&relist).relist);
    let relisted = open_with(root.path(), &Cache { relist: true, ..cache_in(kept.path()) });
    assert_eq!(names(&relisted), ["a.png", "b.png", "c.png"]);
    assert_eq!(names(&open_with(root.path(), &cache)), ["a.png", "b.png", "c.png"]);
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error() {
    let root = folder(&["a.png", "b.png", "c.png"]);
    settle();
    for inside in [root.path().join("a.png"), root.path().join("a.png/in"), "/proc/none".into()] {
        assert_eq!(open_with(root.path(), &cache_in(&inside)).len(), 3);
    }
    let nowhere = Cache { folder: None, ..cache_in(root.path()) };
    assert_eq!(open_with(root.path(), &nowhere).len(), 3);
    assert_eq!(files(root.path()).len(), 3);
}

#[test]
fn only_shards_that_changed_are_read_again() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "s-0.tar", &shard(&["a.jpg", "._a.jpg"]));
    write(root.path(), "s-1.tar", &shard(&["b.jpg", "b.txt"]));
    write(root.path(), "list", b"s-1.tar\ns-0.tar\n");
    let pattern = root.path().join("s-{0..1}.tar");
    let list = root.path().join("list");
    settle();
    for (path, rest) in [(root.path(), ""), (&pattern, "s-{0..1}.tar"), (&list, "list")] {
        let (_kept, cache) = new_cache();
        let known = |shards: &[&str]| -> Vec<bool> {
            let shards: Vec<PathBuf> = shards.iter().map(PathBuf::from).collect();
            let key = Key::new("members", root.path(), Path::new(rest));
            let known = cache.members(key.as_ref(), root.path(), &shards);
            known.iter().map(Option::is_some).collect()
        };
        assert_eq!(known(&["s-0.tar", "s-1.tar"]), [false, false]);
        let walked = all_of(&open(path));
        assert_eq!(all_of(&open_with(path, &cache)), walked);
        assert_eq!(known(&["s-0.tar", "s-1.tar", "s-2.tar"]), [true, true, false]);
        assert_eq!(all_of(&open_with(path, &cache)), walked);
    }
    let (_kept, cache) = new_cache();
    let known = |shards: &[&str]| -> Vec<bool> {
        let shards: Vec<PathBuf> = shards.iter().map(PathBuf::from).collect();
        let key = Key::new("members", root.path(), Path::new(""));
        let known = cache.members(key.as_ref(), root.path(), &shards);
        known.iter().map(Option::is_some).collect()
    };
    open_with(root.path(), &cache);
    // One is replaced by another of the same size, one added.
    write(root.path(), "s-1.tar", &shard(&["c.jpg", "c.txt"]));
    write(root.path(), "s-2.tar", &shard(&["d.jpg"]));
    assert_eq!(known(&["s-0.tar", "s-1.tar", "s-2.tar"]), [true, false, false]);
    let changed = open_with(root.path(), &cache);
    assert_eq!(names(&changed), ["s-0.tar:a.jpg", "s-1.tar:c.jpg", "s-2.tar:d.jpg"]);
    assert_eq!(all_of(&changed), all_of(&open(root.path())));
    settle();
    open_with(root.path(), &cache);
    assert_eq!(known(&["s-0.tar", "s-1.tar", "s-2.tar"]), [true, true, true]);
}

#[test]
fn class_folders_are_kept_together_and_still_checked() {
    let root = folder(&["ant/1.png", "ant/deep/2.png", "bee/3.png", "beside.png"]);
    symlink(root.path().join("bee"), root.path().join("cow")).unwrap();
    settle();
    let (kept, cache) = new_cache();
    let open = |known: Option<&[String]>, cache: &Cache| {
        LabelledDataset::open_with(root.path(), &with_channels(3), known, cache, &Alone)
    };
    let uncached = || open(None, &Cache { folder: None, ..cache_in(kept.path()) }).unwrap();
    let walked = uncached();
    assert_eq!(walked.classes(), ["ant", "bee", "cow"]);
    assert_eq!(format!("{:?}", open(None, &cache).unwrap()), format!("{walked:?}"));
    assert_eq!(files(kept.path()).len(), 1);
    let key = Key::new("class folders", root.path(), Path::new(""));
    assert!(cache.listing(key.as_ref(), root.path()).is_some());
    assert!(!is_kept(root.path(), &cache), "a folder without classes has other images");
    assert_eq!(format!("{:?}", open(None, &cache).unwrap()), format!("{walked:?}"));
    let known = ["ant", "bee"].map(str::to_owned);
    let message = open(Some(&known), &cache).unwrap_err().to_string();
    assert!(
        message.contains("1 class folder with the name of none of the 2 known classes: \"cow\""),
        "{message}"
    );

    write(root.path(), "bee/4.png", b"");
    let message = format!("{:?}", open(None, &cache).unwrap());
    assert_eq!(message, format!("{:?}", uncached()));
    settle();
    open(None, &cache).unwrap();
    write(root.path(), "dog/5.png", b"");
    assert_eq!(open(None, &cache).unwrap().classes(), ["ant", "bee", "cow", "dog"]);
}

#[test]
fn the_users_cache_folder() {
    let given = |xdg: Option<&str>, home: Option<&str>| {
        listings_in(xdg.map(Into::into), home.map(Into::into))
    };
    let expected = |cache: &str| Some(Path::new(cache).join("spark-backbone/listings"));
    assert_eq!(given(Some("/big"), Some("/home/me")), expected("/big"));
    assert_eq!(given(None, Some("/home/me")), expected("/home/me/.cache"));
    assert_eq!(given(Some("here"), Some("/home/me")), expected("/home/me/.cache"));
    assert_eq!(given(Some(""), None), None);
}
