//! Names of objects.

use std::fmt;
use std::str::FromStr;

use object_store::path::Path;
use url::Url;

use crate::{Error, Result};

/// What kind of store an object lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Amazon S3 and everything that speaks its protocol: `s3://bucket/key`.
    S3,
    /// Google Cloud Storage: `gs://bucket/key`.
    Gcs,
    /// Azure Blob Storage: `az://container/key`, `abfss://container@account.dfs.core.windows.net/key`.
    Azure,
    /// A web server: `https://host/path`.
    Http,
}

/// The schemes as they are written, in lower case.
const SCHEMES: [(&str, Scheme); 8] = [
    ("s3", Scheme::S3),
    ("s3a", Scheme::S3),
    ("gs", Scheme::Gcs),
    ("az", Scheme::Azure),
    ("abfs", Scheme::Azure),
    ("abfss", Scheme::Azure),
    ("http", Scheme::Http),
    ("https", Scheme::Http),
];

/// Where an object, or a prefix of objects' names, lies: `s3://bucket/set/shard-000.tar`.
///
/// Names in buckets are taken as they are; those of web servers are addresses, in which `%20` is a
/// space.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    scheme: Scheme,
    /// The store it is in, with its scheme: `s3://bucket`.
    store: String,
    /// Its name there, without slashes at its ends; empty for the whole store.
    path: Path,
    /// Whether it was written with a slash at its end.
    folder: bool,
}

impl Location {
    /// Whether `text` is written as the name of something in a store, or of a kind that is not
    /// known: everything that begins as `word://`.
    pub fn is_one(text: &str) -> bool {
        let Some((scheme, _)) = text.split_once("://") else { return false };
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(is_word)
    }

    /// Reads a location.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown scheme, no bucket, and names that no store has.
    pub fn parse(text: &str) -> Result<Self> {
        let shown = without_secrets(text);
        let refused = |rule: &str| Error::invalid("location", &shown, rule);
        let (word, rest) = text.split_once("://").ok_or_else(|| {
            refused("it is written s3://bucket/key, gs://…, az://…, abfss://… or https://…")
        })?;
        let word = word.to_ascii_lowercase();
        let known = SCHEMES.iter().find(|(name, _)| *name == word);
        let &(_, scheme) = known.ok_or_else(|| {
            refused("its scheme must be one of s3, gs, az, abfs, abfss, http, https")
        })?;
        let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() {
            return Err(refused(match scheme {
                Scheme::Http => "it names no host",
                Scheme::Azure => "it names no container",
                _ => "it names no bucket",
            }));
        }
        let badly =
            |e: object_store::path::Error| refused(&format!("no object can have that name: {e}"));
        let path = match scheme {
            Scheme::Http => {
                if authority.contains('@') {
                    return Err(refused(
                        "names and passwords don't belong into an address, which is logged",
                    ));
                }
                let url =
                    Url::parse(text).map_err(|e| refused(&format!("it is no address: {e}")))?;
                if url.query().is_some() || url.fragment().is_some() {
                    return Err(refused(
                        "a ? or # begins no part of a name; a signed address is for one object, \
                         where a data set has many: use the store's own scheme (s3://, gs://, \
                         az://) with credentials",
                    ));
                }
                Path::from_url_path(url.path()).map_err(badly)?
            }
            _ => Path::parse(key).map_err(badly)?,
        };
        let store = format!("{word}://{authority}");
        Ok(Location { scheme, store, path, folder: key.is_empty() || key.ends_with('/') })
    }

    /// The kind of the store.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The store, with its scheme: `s3://bucket`.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// The object's name in its store, without a slash at its start or end.
    pub fn key(&self) -> &str {
        self.path.as_ref()
    }

    /// What follows the last slash of the name.
    pub fn file_name(&self) -> &str {
        self.key().rsplit('/').next().unwrap_or_default()
    }

    /// Whether it was written as a folder is: with a slash at its end, or a bucket alone.
    pub fn is_folder(&self) -> bool {
        self.folder
    }

    /// The same as a folder: with a slash at its end.
    pub fn as_folder(&self) -> Self {
        Location { folder: true, ..self.clone() }
    }

    /// The folder it lies in.
    pub fn parent(&self) -> Self {
        let parent = self.key().rsplit_once('/').map_or("", |(parent, _)| parent);
        let path = Path::parse(parent).unwrap_or_default();
        Location { path, folder: true, ..self.clone() }
    }

    /// What is called `name`, which may have folders, below this one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that no object can have.
    pub fn join(&self, name: &str) -> Result<Self> {
        let whole = match self.key() {
            "" => name.to_owned(),
            key => format!("{key}/{name}"),
        };
        let path = Path::parse(&whole).map_err(|e| {
            let rule = format!("no object of {self} can have that name: {e}");
            Error::invalid("name", format!("{name:?}"), rule)
        })?;
        Ok(Location { path, folder: name.ends_with('/'), ..self.clone() })
    }

    /// The name relative to `folder`; none if it does not lie there.
    pub fn name_in(&self, folder: &Location) -> Option<&str> {
        if self.store != folder.store {
            return None;
        }
        match folder.key() {
            "" => Some(self.key()),
            prefix => self.key().strip_prefix(prefix)?.strip_prefix('/'),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The object of this store that a listing calls `path`.
    pub(crate) fn beside(&self, path: Path) -> Self {
        Location { path, folder: false, ..self.clone() }
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.folder && !self.key().is_empty() { "/" } else { "" };
        write!(f, "{}/{}{end}", self.store, self.key())
    }
}

/// `text` for messages: a query may be a signature, and what stands before an `@` a password.
fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match text.split_once("://") {
        Some((word, rest)) if word.starts_with("http") => {
            let (authority, path) =
                rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(p)));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{word}://{host}{}", path.map_or(String::new(), |path| format!("/{path}")))
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read_and_written() {
        let cases = [
            ("s3://bucket/set/a-000.tar", Scheme::S3, "s3://bucket", "set/a-000.tar", false),
            ("gs://b/naïve 猫.jpg", Scheme::Gcs, "gs://b", "naïve 猫.jpg", false),
            ("az://container/photos/", Scheme::Azure, "az://container", "photos", true),
            (
                "abfss://c@acc.dfs.core.windows.net/x",
                Scheme::Azure,
                "abfss://c@acc.dfs.core.windows.net",
                "x",
                false,
            ),
            (
                "https://host:9000/a%20b/c.tar",
                Scheme::Http,
                "https://host:9000",
                "a b/c.tar",
                false,
            ),
            ("S3://bucket", Scheme::S3, "s3://bucket", "", true),
        ];
        for (text, scheme, store, key, folder) in cases {
            let at = Location::parse(text).unwrap();
            assert_eq!(
                (at.scheme(), at.store(), at.key(), at.is_folder()),
                (scheme, store, key, folder)
            );
            assert_eq!(at.to_string().parse::<Location>().unwrap().store(), store);
        }
        assert_eq!(Location::parse("s3://b/x%20y").unwrap().key(), "x%20y");
    }

    #[test]
    fn what_names_nothing_is_refused_without_its_secrets() {
        for (text, said) in [
            ("ftp://host/x", "its scheme must be one of s3"),
            ("s3:///key", "names no bucket"),
            ("s3://b/a//c", "no object can have that name"),
            ("s3://b/a/../c", "no object can have that name"),
            ("https://h/x?X-Amz-Signature=secret", "a ? or # begins no part"),
            ("https://user:secret@h/x", "names and passwords"),
            ("photos", "it is written s3://bucket/key"),
        ] {
            let message = Location::parse(text).unwrap_err().to_string();
            assert!(message.contains(said) && !message.contains("secret"), "{text}: {message}");
        }
        assert!(Location::is_one("s3://b") && Location::is_one("ftp://x"));
        assert!(
            !Location::is_one("photos")
                && !Location::is_one("/a://b")
                && !Location::is_one("hf:a/b")
        );
    }

    #[test]
    fn names_below_and_above() {
        let folder = Location::parse("s3://b/set/").unwrap();
        let shard = folder.join("deep/a.tar").unwrap();
        assert_eq!(shard.to_string(), "s3://b/set/deep/a.tar");
        assert_eq!(shard.name_in(&folder), Some("deep/a.tar"));
        assert_eq!(shard.parent().to_string(), "s3://b/set/deep/");
        assert_eq!(shard.file_name(), "a.tar");
        assert_eq!(Location::parse("s3://b/set2/x").unwrap().name_in(&folder), None);
        assert_eq!(Location::parse("s3://b").unwrap().join("x").unwrap().to_string(), "s3://b/x");
        assert!(folder.join("../x").is_err());
    }
}
