//! Archives beyond plain files of plain names: compressed, with links, holes and damage. What
//! Python reads of the sound ones is compared with it elsewhere.

use std::io::Write;

use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::super::super::peers::threads::together;
use super::kept::{all_of, new_cache, settle};
use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn header(kind: tar::EntryType, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header
}

/// Two images, a link to the first, one to nothing, and one with holes.
fn varied() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for name in ["a.jpg", "in/b.jpg"] {
        let mut header = header(tar::EntryType::Regular, name.len());
        builder.append_data(&mut header, name, name.as_bytes()).unwrap();
    }
    let mut link = header(tar::EntryType::Symlink, 0);
    builder.append_link(&mut link, "in/link.jpg", "../a.jpg").unwrap();
    builder.append_link(&mut link, "broken.jpg", "nowhere.jpg").unwrap();
    // As GNU tar --sparse --format=posix writes a file of a megabyte of nothing.
    let extensions = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.name", b"holes.jpg"),
        ("GNU.sparse.realsize", b"1000000"),
    ];
    builder.append_pax_extensions(extensions).unwrap();
    let mut holes = header(tar::EntryType::Regular, 4);
    builder.append_data(&mut holes, "GNUSparseFile.0/holes.jpg", &b"1\n0\n"[..]).unwrap();
    builder.into_inner().unwrap()
}

/// Names, and contents or what is wrong with them.
fn contents(dataset: &Dataset) -> Vec<(String, String)> {
    let content = |index| match dataset.read(index) {
        Ok(bytes) => String::from_utf8(bytes).unwrap(),
        Err(error) => error.to_string(),
    };
    (0..dataset.len()).map(|index| (dataset.name(index), content(index))).collect()
}

#[test]
fn links_lead_to_members_and_what_cannot_be_read_is_said() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "s.tar", &varied());
    let found = contents(&open(root.path()));
    let names: Vec<&str> = found.iter().map(|(name, _)| &name[6..]).collect();
    assert_eq!(names, ["a.jpg", "in/b.jpg", "in/link.jpg", "broken.jpg", "holes.jpg"]);
    assert_eq!(found[2].1, "a.jpg");
    assert!(found[3].1.ends_with("s.tar:broken.jpg: a link to a file that the archive has not"));
    assert!(found[4].1.contains("s.tar:holes.jpg: packed with holes (tar --sparse)"));
}

#[test]
fn compressed_ones_are_unpacked_on_every_process() {
    let root = folder(&["z.png"]);
    write(root.path(), "plain.tar", &shard(&["p.jpg"]));
    write(root.path(), "one.tar", &gzip(&varied()));
    write(root.path(), "two.tar.gz", &gzip(&shard(&["t.jpg", "x.json"])));
    write(root.path(), "three.TGZ", &gzip(&shard(&["u.jpg"])));
    write(root.path(), "list.gz", b"no archive, and not called like one");
    let dataset = open(root.path());
    let expected = [
        ("one.tar:a.jpg", "a.jpg"),
        ("one.tar:in/b.jpg", "in/b.jpg"),
        ("one.tar:in/link.jpg", "a.jpg"),
        ("plain.tar:p.jpg", "p.jpg"),
        ("three.TGZ:u.jpg", "u.jpg"),
        ("two.tar.gz:t.jpg", "t.jpg"),
        ("z.png", "z.png"),
    ];
    let mut found = contents(&dataset);
    found.retain(|(_, content)| !content.contains(": "));
    assert_eq!(found, expected.map(|(name, content)| (name.to_owned(), content.to_owned())));

    settle();
    let (_kept, cache) = new_cache();
    for _ in 0..2 {
        let all = together(3, |peers| {
            let dataset =
                Dataset::open_with(root.path(), &with_channels(3), &cache, peers).unwrap();
            (all_of(&dataset), contents(&dataset))
        });
        // The places in the scratch file are each process's own.
        assert!(all.iter().all(|(_, read)| *read == contents(&dataset)));
    }
    let own = DatasetOptions { own_shards: true, ..with_channels(3) };
    fs::remove_file(root.path().join("z.png")).unwrap();
    let read = together(2, |peers| {
        contents(&Dataset::open_among(root.path(), &own, peers).unwrap()).len()
    });
    assert_eq!(read, [6, 2]);
}

#[test]
fn an_archive_may_be_called_anything_if_it_is_named() {
    let root = folder(&[]);
    for bytes in [shard(&["a.jpg"]), gzip(&shard(&["a.jpg"]))] {
        write(root.path(), "download", &bytes);
        assert_reads_its_names(&open(root.path().join("download")));
    }
}

#[test]
fn other_compression_and_damage_are_named() {
    let root = tempfile::tempdir().unwrap();
    let whole = gzip(&shard(&["a.jpg", "b.jpg"]));
    let cases: [(&str, &[u8], &str); 8] = [
        ("s.tar", b"BZh91AY&SY", "an archive of bzip2, which is not read"),
        ("s.tar", b"\xfd7zXZ\0\0\x04", "unpack it with `unxz "),
        ("s.tar.zst", b"\x28\xb5\x2f\xfd\0", "unpack it with `zstd -d "),
        ("s.tar", b"PK\x03\x04", "an archive of zip"),
        ("s.tar", &whole[..whole.len() / 2], "its gzip compression is damaged"),
        ("s.tar", &gzip(b"no archive"), "s.tar: not a readable tar archive"),
        ("s.tar", &gzip(&shard(&["a.jpg"])[..515]), "s.tar: truncated: its member a.jpg"),
        ("s.tar", b"", "no images found"),
    ];
    for (name, bytes, problem) in cases {
        write(root.path(), name, bytes);
        let message = refusal(root.path().join(name));
        assert!(message.contains(problem) && message.contains(name), "{message}");
    }
}

#[test]
fn a_name_may_not_fill_the_memory() {
    let root = tempfile::tempdir().unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut long = header(tar::EntryType::GNULongName, 1 << 25);
    builder.append_data(&mut long, "././@LongLink", &vec![b'n'; 1 << 25][..]).unwrap();
    write(root.path(), "s.tar", &builder.into_inner().unwrap());
    let message = refusal(root.path());
    assert!(message.contains("headers take more than 16777216 bytes"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Damage anywhere is an error, or changes what is read; no more is read than there is.
    #[test]
    fn any_damage(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        compressed in any::<bool>(),
    ) {
        let mut bytes = varied();
        let length = bytes.len();
        for (place, value) in changes {
            bytes[place.index(length)] = value;
        }
        bytes.truncate(cut.index(2 * length).min(length));
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "s.tar", &if compressed { gzip(&bytes) } else { bytes });
        if let Ok(dataset) = Dataset::open(root.path(), &with_channels(3)) {
            for index in 0..dataset.len() {
                prop_assert!(dataset.read(index).map_or(0, |read| read.len()) <= length);
            }
        }
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2000), mark in 0..3usize) {
        let root = tempfile::tempdir().unwrap();
        let start: &[u8] = [&b""[..], &[0x1f, 0x8b, 8, 0], b"BZh9"][mark];
        write(root.path(), "s.tar", &[start, &bytes].concat());
        let _ = Dataset::open(root.path(), &with_channels(3));
    }
}
