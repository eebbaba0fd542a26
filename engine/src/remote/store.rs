//! What is asked of object storage here, besides what [`Storage`] has.

use storage::{Location, Object, Settings, Storage};

use crate::Result;

/// A handle with the usual patience.
///
/// # Errors
/// No thread can be started.
pub fn open() -> Result<Storage> {
    Ok(Storage::new(Settings::default())?)
}

/// The object at `at`; none if there is none.
///
/// # Errors
/// [`crate::Error::Storage`] when that can't be told.
pub fn find(storage: &Storage, at: &Location) -> Result<Option<Object>> {
    match storage.head(at) {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
