//! Lists as editors and exporters write them.

use proptest::prelude::*;

use super::*;

fn listed(root: &Path, list: &[u8]) -> Vec<String> {
    fs::write(root.join("list.txt"), list).unwrap();
    names(&open(root.join("list.txt")))
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn any_usual_encoding_and_line_end() {
    let root = folder(&["a.png", "猫/é b.png", "c.png"]);
    let lines = "# é\r\na.png  \r\n\r\n\"猫/é b.png\"\r\n'c.png'\r\n";
    let expected = ["a.png", "猫/é b.png", "c.png"];
    let marked = format!("\u{feff}{lines}");
    for list in [lines.as_bytes().to_vec(), marked.clone().into_bytes(), utf16(&marked)] {
        assert_eq!(listed(root.path(), &list), expected);
        assert_reads_its_names(&open(root.path().join("list.txt")));
    }
    assert_eq!(listed(root.path(), lines.replace("\r\n", "\r").as_bytes()), expected);
    fs::write(root.path().join(OsStr::from_bytes(b"caf\xe9.png")), b"latin").unwrap();
    assert_eq!(listed(root.path(), b"caf\xe9.png"), ["caf\\xe9.png"]);
    assert_eq!(open(root.path().join("list.txt")).read(0).unwrap(), b"latin");
}

#[test]
fn what_is_no_list_is_said() {
    let root = folder(&["a.png"]);
    let cases: [(&[u8], &str); 6] = [
        (&utf16("a.png\na.png\n"), "UTF-16 without a byte order mark; save it as UTF-8"),
        (b"file,label\na.png,1\n", "list.txt:1: \"file,label\" is not the path"),
        (b"a.png\na.png\tcat\n", "list.txt:2: \"a.png\\tcat\" is not the path"),
        (b"a.png\n\na.png 7\n", "list.txt:3: \"a.png 7\" is not the path"),
        (b"\xef\xbb\xbf\n", "no images found"),
        (b"a.png\n\0\0\0\n", "it has zero bytes; it is neither a folder, an image"),
    ];
    for (list, problem) in cases {
        write(root.path(), "list.txt", list);
        let message = refusal(root.path().join("list.txt"));
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn what_a_list_names_is_read_or_said() {
    let root = folder(&["~/a.png"]);
    assert_eq!(listed(root.path(), b"~/a.png"), ["~/a.png"], "a folder may be called so");
    let home = std::env::home_dir().unwrap();
    fs::remove_dir_all(root.path().join("~")).unwrap();
    let expected = home.join("a.png").display().to_string();
    assert_eq!(listed(root.path(), b"~/a.png"), [expected]);

    let pipe = root.path().join("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    listed(root.path(), b"pipe.png\nmissing.png\n");
    let dataset = open(root.path().join("list.txt"));
    let message = |index| dataset.read(index).unwrap_err().to_string();
    assert!(message(0).contains("pipe.png: a pipe, a socket or a device"), "{}", message(0));
    assert!(message(1).contains("missing.png: No such file"), "{}", message(1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever a list holds, it is read or refused with its name.
    #[test]
    fn any_bytes(
        bytes in proptest::collection::vec(
            prop::sample::select(vec![
                &b"a.png"[..], b"\n", b"\xff\xfe", b"\0", b"\xef\xbb\xbf", b"\"", b"#", b"\xe9", b".tar\n",
            ]),
            0..40,
        ),
    ) {
        let root = folder(&["a.png"]);
        write(root.path(), "list.txt", &bytes.concat());
        match Dataset::open(root.path().join("list.txt"), &with_channels(3)) {
            Ok(dataset) => (0..dataset.len()).for_each(|index| drop(dataset.read(index))),
            Err(error) => prop_assert!(error.to_string().contains(&*root.path().to_string_lossy())),
        }
    }
}
