//! What images are called in shards.

use std::collections::HashSet;
use std::fmt::Write;

/// The keys of a set's samples. A key tells which file an image was: it is the file's path without
/// extension, in which all but letters, digits, `_`, `-` and `/` is written `%NN`, as in
/// addresses: a dot ends a sample's name for WebDataset, and white space a word of an index. Where
/// files differ in nothing but their extension, all but the first have `~` and their number behind.
#[derive(Debug)]
pub(super) struct Keys {
    /// Images whose key is an earlier one's.
    repeated: HashSet<usize>,
}

impl Keys {
    /// For images of these names.
    pub fn of(names: impl Iterator<Item = String>) -> Self {
        // Hashes take a fraction of the memory; two that are equal by chance cost a number.
        let mut seen = HashSet::new();
        let repeats =
            names.enumerate().filter(|(_, name)| !seen.insert(hash(&escaped(split(name).0))));
        Keys { repeated: repeats.map(|(index, _)| index).collect() }
    }

    /// Key and extension of image `index`, called `name`.
    pub fn key(&self, index: usize, name: &str) -> (String, String) {
        let (stem, extension) = split(name);
        let mut key = escaped(stem);
        if self.repeated.contains(&index) {
            // Writing to a string cannot fail.
            let _ = write!(key, "~{index}");
        }
        (key, extension.to_ascii_lowercase())
    }
}

/// The same in every process, so that what chance does is the same, too.
fn hash(text: &str) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

/// A name's part before its extension, and that.
fn split(name: &str) -> (&str, &str) {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[start..].rfind('.') {
        Some(dot) => (&name[..start + dot], &name[start + dot + 1..]),
        None => (name, ""),
    }
}

fn escaped(stem: &str) -> String {
    let mut key = String::with_capacity(stem.len());
    for letter in stem.chars() {
        // Slashes at the start or twice mean nothing, and not every reader keeps them.
        if letter == '/' && (key.is_empty() || key.ends_with('/')) {
            continue;
        }
        if letter.is_alphanumeric() || matches!(letter, '_' | '-' | '/') {
            key.push(letter);
            continue;
        }
        for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
            let _ = write!(key, "%{byte:02X}");
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_no_dots_or_spaces_and_differ() {
        let names = [
            "a.jpg",
            "a.png",
            "a.PNG",
            "a.b.jpg",
            "cat/my photo.JPEG",
            "/abs/猫.webp",
            "cat//my photo.jpeg",
            "x.tar:train/1.jpg",
            "caf\\xe9.png",
            "tab\there.png",
        ];
        let keys = Keys::of(names.iter().map(|&name| name.to_owned()));
        let found: Vec<String> = (0..names.len())
            .map(|index| keys.key(index, names[index]))
            .map(|(key, extension)| format!("{key}.{extension}"))
            .collect();
        let expected = [
            "a.jpg",
            "a~1.png",
            "a~2.png",
            "a%2Eb.jpg",
            "cat/my%20photo.jpeg",
            "abs/猫.webp",
            "cat/my%20photo~6.jpeg",
            "x%2Etar%3Atrain/1.jpg",
            "caf%5Cxe9.png",
            "tab%09here.png",
        ];
        assert_eq!(found, expected);
    }
}
