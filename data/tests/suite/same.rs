//! The same images in the same order, whatever of it was kept.

use std::sync::Arc;

use data::{Dataset, DatasetOptions, StorageOptions};
use storage::{IndexedMember, ShardIndex};
use test_objects::Objects;

use crate::{SHARDS, asked, batches, local, names, options, shards};

#[test]
fn batches_are_those_of_local_shards_on_any_number_of_processes() {
    let objects = Objects::start();
    let folder = shards(&objects);
    let here = local(folder.path());
    let web = format!("{}/bucket/set/shard-{{0..2}}.tar", objects.endpoint());
    for place in [SHARDS, &web] {
        let there = Arc::new(Dataset::open(place, &options(&objects)).unwrap());
        assert_eq!(names(&there), names(&here));
        assert_eq!(there.other_files(), here.other_files());
        for (rank, size, start) in [(0, 1, 0), (1, 2, 0), (3, 4, 0), (0, 1, 7)] {
            let (there, here) =
                (batches(&there, rank, size, start), batches(&here, rank, size, start));
            assert!(
                !here.is_empty() && there == here,
                "{place}: rank {rank} of {size} from {start}"
            );
        }
    }
}

#[test]
fn a_run_that_goes_on_reads_no_more_than_it_needs() {
    let objects = Objects::start();
    let folder = shards(&objects);
    let kept = tempfile::tempdir().unwrap();
    let listings = Some(kept.path().to_owned());
    let options = DatasetOptions { listings, ..options(&objects) };
    drop(Dataset::open(SHARDS, &options).unwrap());
    objects.requests();
    // What the shards hold is known from before.
    let there = Arc::new(Dataset::open(SHARDS, &options).unwrap());
    assert!(asked(&objects).iter().all(|request| request.starts_with("HEAD")));
    let here = local(folder.path());
    assert!(batches(&there, 0, 1, 10) == batches(&here, 0, 1, 10));
    // The last two steps of twelve, four images each.
    assert_eq!(asked(&objects).len(), 8);
    // A shard that was written anew is read anew.
    let bytes = std::fs::read(folder.path().join("shard-1.tar")).unwrap();
    objects.put("bucket", "set/shard-1.tar", [&bytes[..], &[0; 1024]].concat());
    drop(Dataset::open(SHARDS, &options).unwrap());
    let read: Vec<String> = asked(&objects).into_iter().filter(|r| r.starts_with("GET")).collect();
    assert!(!read.is_empty() && read.iter().all(|r| r.contains("shard-1.tar")), "{read:?}");
}

#[test]
fn an_index_beside_a_shard_saves_reading_it_unless_it_is_anothers() {
    let objects = Objects::start();
    let folder = shards(&objects);
    let index = |shard: usize| {
        let mut archive = tar::Archive::new(
            std::fs::File::open(folder.path().join(format!("shard-{shard}.tar"))).unwrap(),
        );
        let member = |entry: std::io::Result<tar::Entry<std::fs::File>>| {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            IndexedMember { name, offset: entry.raw_file_position(), size: entry.size() }
        };
        let members = archive.entries().unwrap().map(member).collect();
        ShardIndex { members }.write().unwrap()
    };
    for shard in 0..3 {
        objects.put("bucket", &format!("set/shard-{shard}.idx"), index(shard));
    }
    let here = local(folder.path());
    let there = Arc::new(Dataset::open(SHARDS, &options(&objects)).unwrap());
    let requests = objects.requests();
    let ranges: Vec<&str> = requests
        .iter()
        .filter(|r| r.method == "GET" && r.target.contains(".tar"))
        .filter_map(|r| r.header("range"))
        .collect();
    assert_eq!(ranges.len(), 3, "of each shard its last header: {ranges:?}");
    assert_eq!(names(&there), names(&here));
    assert!(batches(&there, 0, 1, 0) == batches(&here, 0, 1, 0));
    // Of another shard, and none at all.
    objects.put("bucket", "set/shard-0.idx", index(1).replace(" 000", " 00x"));
    objects.put("bucket", "set/shard-1.idx", "v1.2 1\npng 1 2\n");
    let there = Arc::new(Dataset::open(SHARDS, &options(&objects)).unwrap());
    assert!(batches(&there, 0, 1, 0) == batches(&here, 0, 1, 0));
}

#[test]
fn a_prefix_is_a_folder_listed_once() {
    let objects = Objects::start();
    let folder = tempfile::tempdir().unwrap();
    let files = ["b/10.png", "b/2.png", "a.png", "a/z.png", "a-b/x.png", "notes.txt", ".h/x.png"];
    for (number, name) in files.iter().enumerate() {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, crate::picture(number)).unwrap();
    }
    objects.upload("bucket", "photos/", folder.path()).unwrap();
    let plain = DatasetOptions { listings: None, ..DatasetOptions::default() };
    let here = Arc::new(Dataset::open(folder.path(), &plain).unwrap());
    let kept = tempfile::tempdir().unwrap();
    let options = DatasetOptions { listings: Some(kept.path().to_owned()), ..options(&objects) };
    let open = |options: &DatasetOptions| {
        let there = Arc::new(Dataset::open("s3://bucket/photos/", options).unwrap());
        (there, asked(&objects))
    };
    let (there, requests) = open(&options);
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(names(&there), names(&here));
    assert!(batches(&there, 0, 1, 0) == batches(&here, 0, 1, 0));
    objects.requests();
    objects.put("bucket", "photos/new.png", crate::picture(99));
    let (there, requests) = open(&options);
    assert!(requests.is_empty() && there.len() == here.len());
    let (there, _) = open(&DatasetOptions { relist: true, ..options });
    assert_eq!(there.len(), here.len() + 1);
    let (bucket, _) = {
        let opened = Dataset::open("s3://bucket", &crate::options(&objects)).unwrap();
        (opened, ())
    };
    assert_eq!(bucket.len(), there.len());
}

#[test]
fn a_list_in_the_store_names_what_lies_beside_it() {
    let objects = Objects::start();
    let folder = shards(&objects);
    objects.put("bucket", "set/list.txt", "# all\nshard-2.tar\nshard-0.tar\n");
    let there = Dataset::open("s3://bucket/set/list.txt", &options(&objects)).unwrap();
    let list = folder.path().join("list.txt");
    std::fs::write(&list, "shard-2.tar\nshard-0.tar\n").unwrap();
    let plain = DatasetOptions { listings: None, ..DatasetOptions::default() };
    assert_eq!(names(&there), names(&Dataset::open(&list, &plain).unwrap()));
    let one = Dataset::open("s3://bucket/set/shard-1.tar", &options(&objects)).unwrap();
    assert_eq!(one.len(), 8);
    std::fs::write(&list, "s3://bucket/set/shard-2.tar\n").unwrap();
    let error = Dataset::open(&list, &plain).unwrap_err().to_string();
    assert!(error.contains("list.txt:1: s3://bucket/set/shard-2.tar lies in a store"), "{error}");
}

#[test]
fn a_cache_serves_the_second_epoch_and_the_next_process() {
    let objects = Objects::start();
    let folder = shards(&objects);
    let cache = tempfile::tempdir().unwrap();
    let plain = options(&objects);
    let cached =
        StorageOptions { cache: Some((cache.path().to_owned(), 1 << 30)), ..plain.storage.clone() };
    let options = DatasetOptions { storage: cached, ..plain };
    let here = local(folder.path());
    let there = Arc::new(Dataset::open(SHARDS, &options).unwrap());
    // The headers were read by way of it, and with them all of these small shards.
    objects.requests();
    assert!(batches(&there, 0, 1, 0) == batches(&here, 0, 1, 0));
    assert_eq!(asked(&objects), Vec::<String>::new());
    let again = Arc::new(Dataset::open(SHARDS, &options).unwrap());
    assert!(batches(&again, 1, 2, 0) == batches(&here, 1, 2, 0));
    assert!(asked(&objects).iter().all(|request| !request.starts_with("GET")));
}
