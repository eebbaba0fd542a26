//! Names in a store: one that is to be new, and another name for what is there.

use bytes::Bytes;
use object_store::{ObjectStoreExt, PutMode, PutPayload};

use crate::connect::Store;
use crate::retry::Failure;
use crate::{Error, Location, Result, Storage};

impl Storage {
    /// Writes an object unless one of that name is there; whether it was written. After a try whose
    /// answer was lost, what is there may be it all the same.
    ///
    /// # Errors
    /// Any other.
    pub fn create(&self, at: &Location, bytes: impl Into<Bytes>) -> Result<bool> {
        let (location, bytes) = (at.clone(), bytes.into());
        let create = self.start(at, |core| async move {
            let at = &location;
            let once = |store: Store| {
                let payload = PutPayload::from(bytes.clone());
                async move {
                    match store.objects.put_opts(at.path(), payload, PutMode::Create.into()).await {
                        Ok(_) => Ok(true),
                        Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                        Err(error) => Err(Failure::Store(error)),
                    }
                }
            };
            core.tried(at, "writing it, if there is none", once).await
        });
        create.wait()
    }

    /// Gives the object `from` another name, `to`, in the same store, which copies it there; what
    /// had that name is replaced.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another store; any other.
    pub fn copy(&self, from: &Location, to: &Location) -> Result<()> {
        if from.store() != to.store() {
            let rule = format!("{from} is in another store, and a store copies its own objects");
            return Err(Error::invalid("location", to, rule));
        }
        let (from, location) = (from.clone(), to.clone());
        let copy = self.start(to, |core| async move {
            let (from, to) = (&from, &location);
            let what = format!("copying {from} to it");
            let once =
                |store: Store| async move { Ok(store.objects.copy(from.path(), to.path()).await?) };
            core.tried(to, &what, once).await
        });
        copy.wait()
    }
}
