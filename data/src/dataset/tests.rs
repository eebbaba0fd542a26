//! Folders, lists and shards.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

mod among;
mod archives;
mod classes;
mod kept;
mod lists;

fn folder(files: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        write(folder.path(), file, file.as_bytes());
    }
    folder
}

fn write(folder: &Path, file: &str, bytes: &[u8]) {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A tar archive of `members`, each holding its own name.
fn shard(members: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for member in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(member.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, member, member.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn with_channels(channels: usize) -> DatasetOptions {
    DatasetOptions { channels, listings: None, ..Default::default() }
}

fn open(path: impl AsRef<Path>) -> Dataset {
    Dataset::open(path, &with_channels(3)).unwrap()
}

fn refusal(path: impl AsRef<Path>) -> String {
    Dataset::open(path, &with_channels(3)).unwrap_err().to_string()
}

fn names(dataset: &Dataset) -> Vec<String> {
    (0..dataset.len()).map(|i| dataset.name(i)).collect()
}

/// Every file here holds its own name.
fn assert_reads_its_names(dataset: &Dataset) {
    for index in 0..dataset.len() {
        let name = dataset.name(index);
        let expected = name.rsplit(':').next().unwrap();
        assert_eq!(dataset.read(index).unwrap(), expected.as_bytes(), "{name}");
    }
}

#[test]
fn a_folder_at_any_depth_sorted() {
    let root = folder(&[
        "b/2.JPG",
        "b/10.jpeg",
        "a/deep/er/x.webp",
        "top.TiFF",
        "notes.txt",
        ".hidden.png",
        ".git/y.png",
        "a/1.bmp",
        "c.png",
        "array.npy",
        "jpg",
    ]);
    let dataset = open(root.path());
    let expected = ["a/1.bmp", "a/deep/er/x.webp", "b/10.jpeg", "b/2.JPG", "c.png", "top.TiFF"];
    assert_eq!(names(&dataset), expected);
    assert_reads_its_names(&dataset);
}

#[test]
fn links_are_followed_and_loops_left() {
    let elsewhere = folder(&["far/z.png"]);
    let root = folder(&["a.png"]);
    symlink(elsewhere.path().join("far"), root.path().join("linked")).unwrap();
    symlink(root.path(), root.path().join("loop")).unwrap();
    symlink("nowhere.png", root.path().join("broken.png")).unwrap();
    let dataset = open(root.path());
    assert_eq!(names(&dataset), ["a.png", "broken.png", "linked/z.png"]);
    assert_eq!(dataset.read(2).unwrap(), b"far/z.png");
    assert!(dataset.read(1).unwrap_err().to_string().contains("broken.png: No such file"));
    // Folders that all link to each other are read once more for each link, not in every order.
    let circle = tempfile::tempdir().unwrap();
    for number in 0..9 {
        write(circle.path(), &format!("{number}/x.png"), b"");
        for other in 0..9 {
            let link = circle.path().join(format!("{number}/to-{other}"));
            symlink(circle.path().join(other.to_string()), link).unwrap();
        }
    }
    assert_eq!(open(circle.path()).len(), 9 + 9 * 8);
    // The data set itself may be a link.
    symlink(root.path(), elsewhere.path().join("set")).unwrap();
    assert_eq!(open(elsewhere.path().join("set")).len(), 3);
}

#[test]
fn a_list_keeps_its_order() {
    let root = folder(&["images/b.png", "images/a.png"]);
    let far = folder(&["far.jpg"]);
    let text = format!(
        "# photographs\n\n images/b.png \r\nimages/a.png\n{}\nimages/b.png\n",
        far.path().join("far.jpg").display()
    );
    write(root.path(), "list.txt", text.as_bytes());
    let dataset = open(root.path().join("list.txt"));
    assert_eq!(names(&dataset)[..2], ["images/b.png", "images/a.png"]);
    assert_eq!((dataset.len(), dataset.read(2).unwrap()), (4, b"far.jpg".to_vec()));
    assert_eq!(dataset.read(3).unwrap(), b"images/b.png");

    write(root.path(), "labels.txt", b"images/a.png\nimages/b.png 7\n");
    let message = refusal(root.path().join("labels.txt"));
    assert!(message.contains("labels.txt:2: \"images/b.png 7\" is not the path"), "{message}");
    write(root.path(), "empty.txt", b"# nothing\n");
    assert!(refusal(root.path().join("empty.txt")).contains("no images found"));
    write(root.path(), "data.bin", b"\0\x01");
    assert!(refusal(root.path().join("data.bin")).contains("neither a folder, an image"));
}

#[test]
fn shards_alone_by_pattern_and_among_images() {
    let root = folder(&["sub/img.png", "x.json"]);
    write(root.path(), "s-00.tar", &shard(&["0/a.jpg", "0/a.json", "b.PNG", "c/._d.jpg"]));
    write(root.path(), "s-01.tar", &shard(&["e.jpg"]));
    write(root.path(), "sub/more.tar", &shard(&["f.webp"]));

    let single = open(root.path().join("s-00.tar"));
    assert_eq!(names(&single), ["s-00.tar:0/a.jpg", "s-00.tar:b.PNG"]);
    assert_reads_its_names(&single);

    let pattern = open(root.path().join("s-{00..01}.tar"));
    assert_eq!(names(&pattern), ["s-00.tar:0/a.jpg", "s-00.tar:b.PNG", "s-01.tar:e.jpg"]);
    assert_reads_its_names(&pattern);
    let across = open(root.path().join("{s-01,sub/more}.tar"));
    assert_eq!(names(&across), ["s-01.tar:e.jpg", "sub/more.tar:f.webp"]);
    assert_reads_its_names(&across);
    assert!(refusal(root.path().join("s-{00..02}.tar")).contains("s-02.tar: No such file"));

    let mixed = names(&open(root.path()));
    let (of_shards, of_sub) = (names(&pattern), ["sub/img.png", "sub/more.tar:f.webp"]);
    assert_eq!(mixed, [&of_shards[..], &of_sub.map(str::to_owned)[..]].concat());

    write(root.path(), "list", b"s-01.tar\nsub/img.png\n");
    assert_eq!(names(&open(root.path().join("list"))), ["s-01.tar:e.jpg", "sub/img.png"]);
}

#[test]
fn members_with_names_too_long_for_a_header() {
    let long = format!("{}/{}.jpg", "d".repeat(90), "n".repeat(150));
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "long.tar", &shard(&[&long, "short.jpg"]));
    let dataset = open(root.path().join("long.tar"));
    assert_eq!(dataset.name(0), format!("long.tar:{long}"));
    assert_reads_its_names(&dataset);
}

#[test]
fn broken_shards_are_named() {
    let root = tempfile::tempdir().unwrap();
    let whole = shard(&["a.jpg", "b.jpg"]);
    // Headers are 512 bytes, contents padded to as much: cut inside the second member's content.
    write(root.path(), "cut.tar", &whole[..512 * 3 + 2]);
    let message = refusal(root.path().join("cut.tar"));
    assert!(message.contains("cut.tar: truncated: its member b.jpg of 5 bytes"), "{message}");
    write(root.path(), "cut.tar", &whole[..512 * 2 + 100]);
    assert!(refusal(root.path().join("cut.tar")).contains("cut.tar: not a readable tar archive"));
    write(root.path(), "no.tar", &[7; 2000]);
    assert!(refusal(root.path()).contains(".tar: not a readable tar archive"));
}

#[test]
fn no_images_says_what_was_looked_for() {
    let root = folder(&["a.txt", "b/c.gif", ".hidden.png"]);
    write(root.path(), "s.tar", &shard(&["x.json"]));
    let message = refusal(root.path());
    assert!(message.contains("no images found; looked for .jpg, .jpeg"), "{message}");
    assert!(message.contains("1 .tar shard, beside 3 other files"), "{message}");
    assert!(refusal(root.path().join("missing")).contains("missing: No such file"));
}

#[test]
fn arrays_stand_in_where_there_are_no_pictures() {
    let root = folder(&["a.npy", "b.npy", "view.tif"]);
    assert_eq!(names(&Dataset::open(root.path(), &with_channels(6)).unwrap()), ["a.npy", "b.npy"]);
    assert_eq!(names(&Dataset::open(root.path(), &with_channels(3)).unwrap()), ["view.tif"]);
    fs::remove_file(root.path().join("view.tif")).unwrap();
    assert_eq!(names(&Dataset::open(root.path(), &with_channels(3)).unwrap()), ["a.npy", "b.npy"]);
    let bands = folder(&["a.tif", "b.png"]);
    assert_eq!(names(&Dataset::open(bands.path(), &with_channels(6)).unwrap()), ["a.tif"]);
    let message = Dataset::open(root.path(), &with_channels(0)).unwrap_err().to_string();
    assert!(message.contains("channels is 0"), "{message}");
}

#[test]
fn decoding_names_the_file_or_member() {
    let root = folder(&["a.jpg"]);
    write(root.path(), "s.tar", &shard(&["in/b.jpg"]));
    let dataset = open(root.path());
    let message = |index| dataset.image(index).unwrap_err().to_string();
    assert!(message(0).contains("/a.jpg: not a JPEG"), "{}", message(0));
    assert!(message(1).contains("/s.tar:in/b.jpg: not a JPEG"), "{}", message(1));
}

#[test]
fn names_need_not_be_unicode() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(OsStr::from_bytes(b"caf\xe9.jpg")), b"latin").unwrap();
    let dataset = open(root.path());
    assert_eq!(dataset.read(0).unwrap(), b"latin");
    assert_eq!(dataset.name(0), "caf\\xe9.jpg");
}
