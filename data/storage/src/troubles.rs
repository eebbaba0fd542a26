//! What is being waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Requests that failed and are about to be sent again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Troubles(Arc<Mutex<Texts>>);

#[derive(Debug, Default)]
struct Texts {
    next: u64,
    by_number: BTreeMap<u64, String>,
}

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, Texts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more; it is gone when what is returned is dropped.
    pub(crate) fn begin(&self) -> Trouble {
        let mut texts = self.lock();
        texts.next += 1;
        Trouble { of: self.clone(), number: texts.next }
    }

    /// The oldest.
    pub(crate) fn first(&self) -> Option<String> {
        self.lock().by_number.values().next().cloned()
    }
}

/// A request in trouble.
pub(crate) struct Trouble {
    of: Troubles,
    number: u64,
}

impl Trouble {
    /// What it is.
    pub(crate) fn note(&self, text: String) {
        self.of.lock().by_number.insert(self.number, text);
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        self.of.lock().by_number.remove(&self.number);
    }
}
