//! Class folders whose names are not what they seem, and shards in the place of folders.

use super::super::super::peers::threads::together;
use super::kept::{new_cache, settle};
use super::*;

const COMPOSED: &str = "caf\u{e9}";
const DECOMPOSED: &str = "cafe\u{301}";

fn open_as(root: &Path, classes: &[&str]) -> Result<LabelledDataset> {
    let classes: Vec<String> = classes.iter().map(|&class| class.to_owned()).collect();
    LabelledDataset::open_as(root, &with_channels(3), &classes)
}

fn labelled(root: &Path) -> LabelledDataset {
    LabelledDataset::open(root, &with_channels(3)).unwrap()
}

#[test]
fn names_that_are_not_unicode_stay_apart() {
    let root = tempfile::tempdir().unwrap();
    // GBK's, of two letters each.
    let classes: [&[u8]; 3] = [b"\xb3\xc8\xd7\xd3", b"\xc6\xbb\xb9\xfb", b"\xc6\xcf\xcc\xd1"];
    for class in classes {
        let folder = root.path().join(OsStr::from_bytes(class));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("1.png"), class).unwrap();
    }
    let dataset = labelled(root.path());
    // By code point, as Python sorts what is no letter.
    let expected = ["\u{1bb}\\xb9\\xfb", "\\xb3\\xc8\\xd7\\xd3", "\\xc6\\xcf\\xcc\\xd1"];
    assert_eq!(dataset.classes(), expected);
    assert_eq!((dataset.counts(), dataset.notes().len()), (vec![1; 3], 0));
    // As a checkpoint has them.
    let again = open_as(root.path(), &expected).unwrap();
    let labels = |dataset: &LabelledDataset| -> Vec<usize> {
        (0..dataset.len()).map(|index| dataset.label(index)).collect()
    };
    assert_eq!((labels(&again), labels(&dataset)), (vec![0, 1, 2], vec![0, 1, 2]));
}

#[test]
fn normal_forms_of_a_name_are_one_class_of_a_known_set() {
    let root = folder(&[&format!("{DECOMPOSED}/1.png"), "b/2.png"]);
    let dataset = open_as(root.path(), &["b", COMPOSED]).unwrap();
    assert_eq!((dataset.label(0), dataset.label(1)), (0, 1));
    let note = &dataset.notes()[0];
    assert!(note.contains("(cafe\\u{301}) is taken for the class"), "{note}");
    // Where both are classes each is its own, and that is told.
    let both = folder(&[&format!("{DECOMPOSED}/1.png"), &format!("{COMPOSED}/2.png")]);
    let dataset = labelled(both.path());
    assert_eq!(dataset.classes(), [DECOMPOSED, COMPOSED]);
    let note = &dataset.notes()[0];
    assert!(note.contains("case, spaces or Unicode normal form: they are 2 classes"), "{note}");
    assert_eq!(open_as(both.path(), &[DECOMPOSED, COMPOSED]).unwrap().counts(), [1, 1]);
    // A third form, where a choice would be a guess.
    let other = folder(&["caf\u{65}\u{301}/1.png", "d/1.png"]);
    assert!(open_as(other.path(), &["d", "e"]).is_err());
}

#[test]
fn other_names_are_refused_with_what_is_meant() {
    let root = folder(&["Cat/1.png", "dog /1.png", "bird/1.png"]);
    let message = open_as(root.path(), &["bird", "cat", "dog", "fox"]).unwrap_err().to_string();
    let expected = "2 class folders with the name of none of the 4 known classes: \"Cat\" (the class is \
                    \"cat\"), \"dog \" (the class is \"dog\"); known classes that have no folder \
                    there: \"cat\", \"dog\", \"fox\"";
    assert!(message.contains(expected), "{message}");
    let dataset = open_as(root.path(), &["Cat", "bird", "cow", "dog "]).unwrap();
    assert!(dataset.notes()[0].contains("no folder for 1 of the 4 classes: \"cow\""));
    assert_eq!(dataset.counts(), [1, 1, 0, 1]);
}

#[test]
fn a_link_back_up_gives_no_class_another_ones_images() {
    let root = folder(&["cat/1.png", "dog/2.png"]);
    symlink("..", root.path().join("cat/up")).unwrap();
    symlink(root.path(), root.path().join("dog/whole")).unwrap();
    let dataset = labelled(root.path());
    assert_eq!(
        (dataset.counts(), names(dataset.images())),
        (vec![1, 1], vec!["cat/1.png".to_owned(), "dog/2.png".to_owned()])
    );
    symlink(".", root.path().join("all")).unwrap();
    let refused = LabelledDataset::open(root.path(), &with_channels(3)).unwrap_err().to_string();
    assert!(refused.contains("1 of 3 class folders have no images: \"all\""), "{refused}");
}

#[test]
fn a_folder_of_shards_has_the_labels_that_its_pattern_has() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..3 {
        // Each member holds its name, which of a label is that of the class.
        let members = [format!("{number}.jpg"), format!("{number}.cls")];
        let members = members.each_ref().map(String::as_str);
        write(root.path(), &format!("s-{number}.tar"), &shard(&members));
    }
    write(root.path(), "notes.md", b"");
    settle();
    let (_kept, cache) = new_cache();
    let open = |path: &Path, peers: &dyn Peers| {
        let options = with_channels(3);
        let dataset = LabelledDataset::open_with(path, &options, None, &cache, peers).unwrap();
        let labels: Vec<usize> = (0..dataset.len()).map(|index| dataset.label(index)).collect();
        (names(dataset.images()), labels, dataset.classes().to_vec())
    };
    let expected = open(&root.path().join("s-{0..2}.tar"), &Alone);
    assert_eq!(expected.1, [0, 1, 2]);
    // Of the listing that is made, and of the one that was kept.
    for _ in 0..2 {
        let all = together(3, |peers| open(root.path(), peers));
        assert!(all.iter().all(|found| *found == expected), "{all:?}");
    }
    write(root.path(), "cat/1.jpg", b"");
    let refused = LabelledDataset::open(root.path(), &with_channels(3)).unwrap_err().to_string();
    assert!(refused.contains("only one class folder, \"cat\""), "{refused}");
}
