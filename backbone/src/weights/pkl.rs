//! Pickles that stand alone: of numpy arrays, as detectron2's model zoo has them,
//! or of tensors that were pickled without `torch.save`.

use std::borrow::Cow;
use std::path::Path;

use super::pickle::Pickle;
use super::torch::Rebuild;
use super::walk::{Storages, Walk};
use super::{Format, WeightFile};
use crate::{Error, Result};

/// Reads the file at `path`.
///
/// # Errors
/// [`Error::Io`], or [`Error::Format`] when the pickle is damaged or there is no
/// array in it.
pub(crate) fn read(path: &Path) -> Result<WeightFile> {
    let bytes = std::fs::read(path).map_err(|source| Error::io(path, source))?;
    read_bytes(path, &bytes)
}

fn read_bytes(path: &Path, bytes: &[u8]) -> Result<WeightFile> {
    let pickle = Pickle::parse(bytes)
        .map_err(|problem| Error::format(path, format!("a damaged pickle: {problem}")))?;
    Walk::over(&pickle, Rebuild::default()).read(path, Format::Pickle, bytes.len(), &Nothing)
}

/// Beside a pickle that stands alone there is nothing.
struct Nothing;

impl Storages for Nothing {
    fn bytes(&self, key: &str) -> std::result::Result<Cow<'_, [u8]>, String> {
        Err(format!("storage {key:?} lies outside of the pickle; save it with torch.save"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::Kind;

    /// `{"w": numpy.arange(2, dtype=">i2")}` as Python 2 pickles it.
    const PYTHON_2: &[u8] = b"\x80\x02}q\x00U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\n\
        ndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02i2K\x00K\x01\x87R(K\x03U\x01>\
        NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\x00\x00\x00\x01tbs.";

    #[test]
    fn python_2_and_big_endian() {
        let file = read_bytes(Path::new("zoo.pkl"), PYTHON_2).unwrap();
        let tensor = &file.tensors["w"];
        assert_eq!(tensor.kind(), Kind::Int16);
        assert_eq!(Vec::<i16>::try_from(tensor).unwrap(), [0, 1]);
    }

    #[test]
    fn a_pickle_of_something_else_says_of_what() {
        let pickle = b"\x80\x02}U\x03netcmy.package\nNet\n)\x81s.";
        let message = read_bytes(Path::new("net.pkl"), pickle).unwrap_err().to_string();
        assert!(message.contains("net.pkl") && message.contains("my.package.Net"), "{message}");
    }

    #[test]
    fn a_cut_file_is_named() {
        for end in 3..PYTHON_2.len() {
            let message = read_bytes(Path::new("cut.pkl"), &PYTHON_2[..end]).unwrap_err();
            assert!(message.to_string().contains("cut.pkl"), "{message}");
        }
    }

    #[test]
    fn a_shape_beyond_the_file_is_refused() {
        let mut pickle = PYTHON_2.to_vec();
        let at = pickle.windows(3).position(|w| w == b"K\x02\x85").unwrap();
        pickle.splice(at..at + 2, *b"J\xff\xff\xff\x7f");
        let message = read_bytes(Path::new("big.pkl"), &pickle).unwrap_err().to_string();
        assert!(message.contains("more memory"), "{message}");
    }

    proptest! {
        /// One changed byte anywhere gives an error or other numbers, no panic.
        #[test]
        fn any_damage_is_survived(at in 0..PYTHON_2.len(), byte in any::<u8>()) {
            let mut pickle = PYTHON_2.to_vec();
            pickle[at] = byte;
            let _ = read_bytes(Path::new("damaged.pkl"), &pickle);
        }
    }
}
