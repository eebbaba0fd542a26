//! Archives beyond plain files of plain names: compressed, with links, holes and damage. What
//! Python reads of the sound ones is compared with it elsewhere.

use std::io::Write;

use flate2::write::GzEncoder;
use lzma_rust2::{XzOptions, XzWriter};
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::super::super::peers::threads::together;
use super::kept::{all_of, new_cache, settle};
use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The header of an xz stream with checksums.
const XZ_START: &[u8] = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46";

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = XzWriter::new(Vec::new(), XzOptions::with_preset(0)).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

type Compress = fn(&[u8]) -> Vec<u8>;
const COMPRESSIONS: [(&str, Compress); 3] = [("gzip", gzip), ("xz", xz), ("Zstandard", zstd)];

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
    write(root.path(), "four.tar.xz", &xz(&shard(&["v.jpg"])));
    write(root.path(), "five.tzst", &zstd(&shard(&["w.jpg", "x.jpg"])));
    write(root.path(), "list.gz", b"no archive, and not called like one");
    let dataset = open(root.path());
    let expected = [
        ("five.tzst:w.jpg", "w.jpg"),
        ("five.tzst:x.jpg", "x.jpg"),
        ("four.tar.xz:v.jpg", "v.jpg"),
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
    assert_eq!(read, [8, 3]);
}

#[test]
fn an_archive_may_be_called_anything_if_it_is_named() {
    let root = folder(&[]);
    write(root.path(), "download", &shard(&["a.jpg"]));
    assert_reads_its_names(&open(root.path().join("download")));
    for (_, compress) in COMPRESSIONS {
        write(root.path(), "download", &compress(&shard(&["a.jpg"])));
        assert_reads_its_names(&open(root.path().join("download")));
    }
}

#[test]
fn streams_may_follow_one_another() {
    let root = tempfile::tempdir().unwrap();
    let whole = shard(&["a.jpg", "b.jpg"]);
    let (first, rest) = whole.split_at(700);
    // Frames without data (RFC 8878, section 3.1.2), and padding between streams (The .xz file
    // format, section 2.2).
    let skipped = b"\x51\x2a\x4d\x18\x03\0\0\0abc";
    let files: [&[&[u8]]; 4] = [
        &[&gzip(first), &gzip(rest), &[0; 99]],
        &[&xz(first), &[0; 1 << 17], &xz(rest), &[0; 5]],
        &[&zstd(first), &zstd(b""), skipped, &zstd(rest), &[0; 5]],
        &[skipped, skipped, &zstd(first), &zstd(rest), skipped],
    ];
    for parts in files {
        write(root.path(), "s.tar", &parts.concat());
        assert_reads_its_names(&open(root.path()));
    }
}

#[test]
fn a_stream_of_no_bytes_is_an_archive_of_no_members() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "whole.tar", &shard(&["a.jpg", "b.jpg"]));
    // As `xz` writes it, without a block (The .xz file format, section 4): the index and the footer.
    let none = b"\0\0\0\0\x1c\xdf\x44\x21\x1f\xb6\xf3\x7d\x01\0\0\0\0\x04YZ";
    // With a block that holds nothing, which Python's lzma reads, too.
    let block = b"\x02\0\x21\x01\x0c\0\0\0\x8f\x98\x41\x9c\0\0\0\0\0\0\0\0\0\0\0\0\
                  \0\x01\x15\0\x3f\x53\x33\x17\x1f\xb6\xf3\x7d\x01\0\0\0\0\x04YZ";
    let [none, block] = [&none[..], &block[..]].map(|rest| [XZ_START, rest].concat());
    let twice = [&none[..], &[0; 4], &block, &none].concat();
    for empty in [gzip(b""), zstd(b""), none, block, twice] {
        write(root.path(), "empty.tar", &empty);
        assert_eq!(names(&open(root.path())), ["whole.tar:a.jpg", "whole.tar:b.jpg"]);
    }
}

#[test]
fn other_compression_and_damage_are_named() {
    let root = tempfile::tempdir().unwrap();
    let cases: [(&str, &[u8], &str); 5] = [
        ("s.tar", b"BZh91AY&SY", "an archive of bzip2, which is not read"),
        ("s.tar", b"PK\x03\x04", "an archive of zip"),
        // A window of 2^31 bytes, and a dictionary of 2^30.
        ("s.tar.zst", b"\x28\xb5\x2f\xfd\0\xa8\x01\0\0", "asks for 2048 MB of memory"),
        ("s.tar", &[XZ_START, b"\x02\0\x21\x01\x24\0\0\0"].concat(), "for 1024 MB"),
        ("s.tar", b"", "no images found"),
    ];
    let refused = |name: &str, bytes: &[u8], problem: &str| {
        write(root.path(), name, bytes);
        let message = refusal(root.path().join(name));
        assert!(message.contains(problem) && message.contains(name), "{message}");
    };
    for (name, bytes, problem) in cases {
        refused(name, bytes, problem);
    }
    for (name, compress) in COMPRESSIONS {
        let damaged = format!("its {name} compression is damaged");
        let whole = compress(&shard(&["a.jpg", "b.jpg"]));
        refused("s.tar", &whole[..whole.len() / 2], &damaged);
        if name == "Zstandard" {
            refused("s.tar", &whole[..whole.len() / 2], "(unexpected end of file)");
        }
        // Two streams, of which the second ends early, and one whose content is another.
        refused("s.tar", &[&whole[..], &whole[..whole.len() - 1]].concat(), &damaged);
        // Of zeros the first value is stored, and repeated.
        let mut other = compress(&[7; 100]);
        let value = other.iter().rposition(|&byte| byte == 7);
        let place = value.unwrap_or(other.len() / 2);
        other[place] ^= 1;
        refused("s.tar", &other, &damaged);
        refused("s.tar", &compress(b"no archive"), "s.tar: not a readable tar archive");
        let cut = compress(&shard(&["a.jpg"])[..515]);
        refused("s.tar", &cut, "s.tar: truncated: its member a.jpg");
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
        compression in 0..COMPRESSIONS.len() + 1,
    ) {
        let mut bytes = varied();
        let length = bytes.len();
        for (place, value) in changes {
            bytes[place.index(length)] = value;
        }
        bytes.truncate(cut.index(2 * length).min(length));
        let root = tempfile::tempdir().unwrap();
        let compress = COMPRESSIONS.get(compression);
        write(root.path(), "s.tar", &compress.map_or(bytes.clone(), |(_, compress)| compress(&bytes)));
        if let Ok(dataset) = Dataset::open(root.path(), &with_channels(3)) {
            for index in 0..dataset.len() {
                prop_assert!(dataset.read(index).map_or(0, |read| read.len()) <= length);
            }
        }
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2000), mark in 0..6usize) {
        let root = tempfile::tempdir().unwrap();
        let marks =
            [&b""[..], b"\x1f\x8b\x08\0", b"BZh9", XZ_START, b"\x28\xb5\x2f\xfd", b"\x5a\x2a\x4d\x18"];
        write(root.path(), "s.tar", &[marks[mark], &bytes].concat());
        let _ = Dataset::open(root.path(), &with_channels(3));
    }

    /// Damage to what is compressed is an error, or in what no checksum covers.
    #[test]
    fn damaged_compression(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        compression in 0..COMPRESSIONS.len(),
    ) {
        let plain = varied();
        let mut bytes = COMPRESSIONS[compression].1(&plain);
        let length = bytes.len();
        for (place, value) in changes {
            bytes[place.index(length)] = value;
        }
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "s.tar", &bytes);
        if let Ok(dataset) = Dataset::open(root.path(), &with_channels(3)) {
            for index in 0..dataset.len() {
                prop_assert!(dataset.read(index).map_or(0, |read| read.len()) <= plain.len());
            }
        }
    }
}
