//! Several processes that read one data set, as threads.

use std::sync::atomic::Ordering;

use super::super::super::peers::threads::{Thread, together};
use super::kept::{all_of, cache_in, settle};
use super::*;

fn options(own_shards: bool) -> DatasetOptions {
    DatasetOptions { own_shards, ..with_channels(3) }
}

fn refusals(size: usize, open: impl Fn(&Thread) -> Result<()> + Sync) -> Vec<String> {
    let results = together(size, |peers| {
        let message = open(peers).unwrap_err().to_string();
        (message, peers.gathers.load(Ordering::Relaxed))
    });
    assert!(results.iter().all(|(_, gathers)| *gathers == results[0].1), "{results:?}");
    results.into_iter().map(|(message, _)| message).collect()
}

/// Of shards that each hold an image or more called like it, and some more files.
fn sharded(shards: usize) -> TempDir {
    let root = folder(&["img/a.png", "img/notes.txt", "z.png"]);
    write_shards(root.path(), shards);
    root
}

fn write_shards(folder: &Path, shards: usize) {
    for number in 0..shards {
        let members: Vec<String> = (0..=number).map(|n| format!("{number}/{n}.jpg")).collect();
        let mut members: Vec<&str> = members.iter().map(String::as_str).collect();
        members.extend(["label.json", "._hidden.jpg"]);
        write(folder, &format!("s-{number}.tar"), &shard(&members));
    }
}

#[test]
fn all_have_the_same_index_as_one_alone() {
    let root = sharded(5);
    write(root.path(), "list", b"s-3.tar\nimg/a.png\ns-0.tar\n");
    let (pattern, list) = (root.path().join("s-{0..4}.tar"), root.path().join("list"));
    for path in [root.path(), &pattern, &list, &root.path().join("img"), &root.path().join("z.png")]
    {
        let alone = all_of(&open(path));
        for size in [1, 2, 3, 8] {
            let all = together(size, |peers| {
                let dataset = Dataset::open_among(path, &options(false), peers).unwrap();
                assert_eq!(dataset.most_samples(), dataset.len());
                assert_eq!(dataset.total_samples(), dataset.len());
                (all_of(&dataset), peers.gathers.load(Ordering::Relaxed))
            });
            assert!(all.iter().all(|(dataset, _)| *dataset == alone), "{path:?}, {size} processes");
            assert!(all.iter().all(|(_, gathers)| *gathers == all[0].1));
        }
    }
}

#[test]
fn only_the_first_lists() {
    let root = folder(&["a/1.png", "b/2.png"]);
    let listed = together(3, |peers| {
        let there = if peers.rank() == 0 { root.path() } else { Path::new("/no/such/folder") };
        let dataset = Dataset::open_among(there, &options(false), peers).unwrap();
        let labelled = LabelledDataset::open_among(there, &options(false), peers).unwrap();
        let known = ["a", "b", "c"].map(str::to_owned);
        let of_known =
            LabelledDataset::open_as_among(there, &options(false), &known, peers).unwrap();
        assert_eq!((labelled.label(1), of_known.counts()), (1, vec![1, 1, 0]));
        names(&dataset)
    });
    assert_eq!(listed, [["a/1.png", "b/2.png"]; 3]);
}

#[test]
fn an_error_of_one_is_everybodys() {
    let missing = refusals(3, |peers| {
        Dataset::open_among("/no/such/folder", &options(false), peers).map(|_| ())
    });
    assert!(missing[0].starts_with("/no/such/folder: No such file"), "{missing:?}");
    let prefixed = format!("rank 0 of 3: {}", missing[0]);
    assert_eq!(missing[1..], [&*prefixed, &*prefixed]);

    // The fourth of five shards is the second process' of two.
    let root = sharded(5);
    write(root.path(), "s-3.tar", &[7; 2000]);
    for own in [false, true] {
        let path = root.path().join("s-{0..4}.tar");
        let broken =
            refusals(2, |peers| Dataset::open_among(&path, &options(own), peers).map(|_| ()));
        assert!(broken[1].contains("s-3.tar: not a readable tar archive"), "{broken:?}");
        assert_eq!(broken[0], format!("rank 1 of 2: {}", broken[1]));
    }

    // A setting is refused by each.
    let odd =
        refusals(2, |peers| Dataset::open_among(root.path(), &with_channels(0), peers).map(|_| ()));
    assert_eq!(odd, ["channels is 0, but at least 1 is needed"; 2]);

    let classes = folder(&["only/1.png"]);
    let only = refusals(2, |peers| {
        LabelledDataset::open_among(classes.path(), &options(false), peers).map(|_| ())
    });
    assert!(only[1].starts_with("rank 0 of 2: ") && only[1].contains("only one class folder"));
    let empty = folder(&["notes.txt"]);
    let none = refusals(2, |p| Dataset::open_among(empty.path(), &options(false), p).map(|_| ()));
    assert!(none.iter().all(|text| text.contains("no images found")), "{none:?}");
}

#[test]
fn what_the_first_kept_saves_everybody_the_scan() {
    let root = sharded(5);
    settle();
    let kept = tempfile::tempdir().unwrap();
    let run = || {
        together(3, |peers| {
            // Only the first process' is used.
            let cache = match peers.rank() {
                0 => cache_in(kept.path()),
                _ => cache_in(Path::new("/proc/none")),
            };
            let dataset = Dataset::open_with(root.path(), &options(false), &cache, peers).unwrap();
            (all_of(&dataset), peers.gathers.load(Ordering::Relaxed))
        })
    };
    let alone = all_of(&open(root.path()));
    assert_eq!(run(), vec![(alone.clone(), 2); 3]);
    assert_eq!(run(), vec![(alone, 1); 3]);
    write(root.path(), "s-2.tar", &shard(&["new.jpg"]));
    write(root.path(), "s-9.tar", &shard(&["newer.jpg"]));
    assert_eq!(run(), vec![(all_of(&open(root.path())), 2); 3]);
}

#[test]
fn each_takes_shards_of_its_own_and_reads_no_others() {
    let size = 3;
    // Every process has a folder in which the others' shards are no archives.
    let roots: Vec<TempDir> = (0..size)
        .map(|rank| {
            let root = tempfile::tempdir().unwrap();
            write_shards(root.path(), 7);
            for other in (0..7).filter(|shard| shard % size != rank) {
                write(root.path(), &format!("s-{other}.tar"), &[7; 2000]);
            }
            root
        })
        .collect();
    settle();
    let kept: Vec<TempDir> = (0..size).map(|_| tempfile::tempdir().unwrap()).collect();
    for round in 0..2 {
        let taken = together(size, |peers| {
            let rank = peers.rank();
            let cache = cache_in(kept[rank].path());
            let dataset =
                Dataset::open_with(roots[rank].path(), &options(true), &cache, peers).unwrap();
            assert_eq!(dataset.other_files(), if rank == 0 { 3 } else { 2 });
            assert_reads_its_names(&dataset);
            (names(&dataset), dataset.most_samples(), dataset.total_samples())
        });
        for (rank, (names, most, total)) in taken.into_iter().enumerate() {
            let shards = (0..7).filter(|shard| shard % size == rank);
            let expected: Vec<String> = shards
                .flat_map(|s| (0..=s).map(move |n| format!("s-{s}.tar:{s}/{n}.jpg")))
                .collect();
            assert_eq!(names, expected, "round {round}");
            // Shards 0, 3, 6 have 1, 4, 7 images; all have 28.
            assert_eq!((most, total), (12, 28));
        }
        assert!(kept.iter().all(|folder| fs::read_dir(folder.path()).unwrap().count() > 0));
    }
}

#[test]
fn members_of_own_shards_are_not_exchanged() {
    let root = tempfile::tempdir().unwrap();
    let members: Vec<String> = (0..500).map(|n| format!("some/folder/{n}.jpg")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    (0..4).for_each(|n| write(root.path(), &format!("{n}.tar"), &shard(&members)));
    let received = |own| {
        together(2, |peers| {
            let dataset = Dataset::open_among(root.path(), &options(own), peers).unwrap();
            assert_eq!(dataset.len(), if own { 1000 } else { 2000 });
            peers.received.load(Ordering::Relaxed)
        })
    };
    assert!(received(true).iter().all(|&bytes| bytes < 100), "{:?}", received(true));
    assert!(received(false).iter().all(|&bytes| bytes > 10_000));
}

#[test]
fn own_shards_need_enough_of_them_and_nothing_else() {
    let refusal = |root: &Path, size, channels| {
        let options = DatasetOptions { own_shards: true, ..with_channels(channels) };
        let texts = refusals(size, |p| Dataset::open_among(root, &options, p).map(|_| ()));
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
        texts[0].clone()
    };
    let root = tempfile::tempdir().unwrap();
    write_shards(root.path(), 2);
    let few = refusal(root.path(), 3, 3);
    assert_eq!(few, "number of .tar shards is 2, but each of the 3 processes needs one of its own");
    let none = refusal(root.path(), 2, 6);
    assert!(none.contains("no images found") && none.contains("inside 2 .tar shards"), "{none}");
    assert!(none.contains("beside 5 other files"), "{none}");
    // One process' shard has arrays alone, which don't count beside the other's pictures.
    write(root.path(), "s-1.tar", &shard(&["a.npy"]));
    let empty = refusal(root.path(), 2, 3);
    assert!(empty.contains("none of the shards of process 1 of 2 has images"), "{empty}");
    write(root.path(), "beside.png", b"");
    let beside = refusal(root.path(), 2, 3);
    assert!(beside.contains("beside.png is not in a .tar shard"), "{beside}");

    let classes = folder(&["a/1.png", "b/2.png"]);
    let labelled = refusals(2, |peers| {
        LabelledDataset::open_among(classes.path(), &options(true), peers).map(|_| ())
    });
    assert!(labelled[0].contains("own shards is true"), "{labelled:?}");
}

#[test]
fn arrays_of_own_shards_stand_in_only_where_nobody_has_pictures() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "0.tar", &shard(&["a.npy", "b.npy"]));
    write(root.path(), "1.tar", &shard(&["c.npy"]));
    let counts = || {
        together(2, |peers| {
            let dataset = Dataset::open_among(root.path(), &options(true), peers).unwrap();
            (dataset.len(), dataset.other_files())
        })
    };
    assert_eq!(counts(), [(2, 0), (1, 0)]);
    write(root.path(), "0.tar", &shard(&["a.npy", "b.png"]));
    write(root.path(), "1.tar", &shard(&["c.npy", "d.jpg", "e.jpg"]));
    assert_eq!(counts(), [(1, 1), (2, 1)]);
}
