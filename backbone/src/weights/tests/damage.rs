//! Files with anything in them: no panic, no endless loop, no memory beyond the file's.

use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// How a file is damaged: a few bytes are others, and it is cut off or has a piece twice.
#[derive(Debug, Clone)]
pub struct Damage {
    changes: Vec<(Index, u8)>,
    cut: Option<Index>,
    doubled: Index,
}

impl Damage {
    pub fn any() -> impl Strategy<Value = Self> {
        let changes = proptest::collection::vec((any::<Index>(), any::<u8>()), 1..6);
        (changes, any::<Option<Index>>(), any::<Index>()).prop_map(|(changes, cut, doubled)| Self {
            changes,
            cut,
            doubled,
        })
    }

    pub fn apply(self, bytes: &mut Vec<u8>) {
        for (at, byte) in self.changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        match self.cut {
            Some(cut) => bytes.truncate(cut.index(bytes.len())),
            None => {
                let at = self.doubled.index(bytes.len());
                let again = bytes[at..(at + 40).min(bytes.len())].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

/// One small file of each kind.
fn valid() -> &'static [(&'static str, Vec<u8>)] {
    static FILES: OnceLock<Vec<(&str, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let tensors =
            filled(&[("conv1.weight", &[2, 3, 1, 1]), ("bn1.bias", &[2])], 1.5, Kind::Half);
        let write = |(name, write, _): &(&'static str, Write, Format)| {
            let path = folder.path().join(name);
            write(&path, &tensors).unwrap();
            (*name, std::fs::read(path).unwrap())
        };
        let mut files: Vec<(&str, Vec<u8>)> = WRITERS.iter().map(write).collect();
        files.push(("legacy.pth", LEGACY.to_vec()));
        files
    })
}

/// `torch.save({"a": torch.tensor([1., 2., 3.])[1:]}, f, _use_new_zipfile_serialization=False)`.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00\
    (X\x10\x00\x00\x00protocol_versionq\x01M\xe9\x03X\r\x00\x00\x00little_endianq\x02\x88X\n\x00\x00\
    \x00type_sizesq\x03}q\x04(X\x05\x00\x00\x00shortq\x05K\x02X\x03\x00\x00\x00intq\x06K\x04X\x04\
    \x00\x00\x00longq\x07K\x04uu.\x80\x02}q\x00X\x01\x00\x00\x00aq\x01ctorch._utils\n\
    _rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03ctorch\nFloatStorage\nq\x04X\x01\x00\x00\
    \x000q\x05X\x03\x00\x00\x00cpuq\x06K\x03Ntq\x07QK\x01K\x02\x85q\x08K\x01\x85q\t\x89ccollections\n\
    OrderedDict\nq\n)Rq\x0btq\x0cRq\rs.\x80\x02]q\x00X\x01\x00\x00\x000q\x01a.\x03\x00\x00\x00\x00\
    \x00\x00\x00\x00\x00\x80?\x00\x00\x00@\x00\x00@@";

/// Reads `bytes`; whatever comes of it, tensors are no larger than the file allows.
fn survive(name: &str, bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    match read(&path) {
        Ok(file) => {
            let bytes_of = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
            let total: usize = file.tensors.values().map(bytes_of).sum();
            // Narrow types are widened four times at most.
            assert!(total <= 4 * walk::budget(bytes.len()), "{name}: {total} bytes");
        }
        Err(error) => assert!(error.to_string().contains(name), "{error}"),
    }
}

#[test]
fn the_legacy_file_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("legacy.pth");
    std::fs::write(&path, LEGACY).unwrap();
    let file = read(&path).unwrap();
    assert_eq!(file.format, Format::TorchLegacy);
    assert_eq!(Vec::<f32>::try_from(&file.tensors["a"]).unwrap(), [2.0, 3.0]);
}

/// Shared values cost nothing in a file; read one by one they would never end.
#[test]
fn dictionaries_that_hold_others_twice_come_to_an_end() {
    let mut pickle = b"\x80\x02}q\x00".to_vec();
    for level in 0..40u8 {
        pickle.extend([b'}', b'q', level + 1]);
        pickle.extend([b'(', b'K', 1, b'h', level, b'K', 2, b'h', level, b'u']);
    }
    pickle.push(b'.');
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("doubling.pkl");
    std::fs::write(&path, pickle).unwrap();
    let message = read(&path).unwrap_err().to_string();
    assert!(message.contains("again and again"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        survive("any.pth", &bytes);
        survive("any.pkl", &[b"\x80\x02", bytes.as_slice()].concat());
    }

    #[test]
    fn any_change_of_a_valid_file_is_survived(
        which in 0..4usize,
        damage in Damage::any(),
    ) {
        let (name, valid) = &valid()[which];
        let mut bytes = valid.clone();
        damage.apply(&mut bytes);
        survive(name, &bytes);
    }

    #[test]
    fn any_index_is_survived(text in "\\{\"weight_map\": \\{(\"[ab]\": \"[./a-c]{0,5}\",?)*\\}\\}?") {
        survive("any.index.json", text.as_bytes());
    }
}
