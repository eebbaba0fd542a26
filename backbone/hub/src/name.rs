//! Names of what lies on a hub: `hf:owner/name[@revision][/file]`.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::{Error, Result};

/// What names of things on a hub begin with.
pub const PREFIX: &str = "hf:";

/// A repository of a hub, or a file in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The user or organisation.
    pub owner: String,
    /// The repository's name.
    pub repo: String,
    /// A branch, tag, commit, or `refs/pr/1`; the branch `main` if there is none.
    pub revision: Option<String>,
    /// The file's path in the repository; the repository's weights if there is none.
    pub file: Option<String>,
}

impl Name {
    /// `owner/name`.
    pub fn repo_id(&self) -> String {
        format!("{}/{}", self.owner, self.repo)
    }

    /// The revision, `main` if none is given.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl FromStr for Name {
    type Err = Error;

    /// Parses `hf:owner/name[@revision][/file]`. A slash in a branch's name is written `%2F`.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |rule: &str| {
            let rule =
                format!("{rule}: hf:owner/name, hf:owner/name@revision, or either with /file");
            Error::invalid("the name", format!("{text:?}"), rule)
        };
        let rest = text.strip_prefix(PREFIX).ok_or_else(|| refuse("it must begin with hf:"))?;
        let (owner, rest) = rest.split_once('/').ok_or_else(|| refuse("it names no repository"))?;
        let (repo, rest) = match rest.find(['/', '@']) {
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        };
        for part in [owner, repo] {
            if !is_plain(part) {
                return Err(refuse("owner and name are of letters, digits, '.', '-' and '_'"));
            }
        }
        let (revision, file) = match rest.strip_prefix('@') {
            Some(rest) => {
                let (revision, file) = split_revision(rest);
                let decoded = percent_decode_str(revision).decode_utf8();
                let revision = decoded.map_err(|_| refuse("the revision is no text"))?;
                if !is_relative(&revision) {
                    return Err(refuse("behind '@' a revision must follow"));
                }
                (Some(revision.into_owned()), file)
            }
            None => (None, rest.strip_prefix('/')),
        };
        if file.is_some_and(|file| !is_relative(file)) {
            return Err(refuse("the file must be a path within the repository"));
        }
        let file = file.map(str::to_owned);
        Ok(Name { owner: owner.into(), repo: repo.into(), revision, file })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}/{}", self.owner, self.repo)?;
        if let Some(revision) = &self.revision {
            let revision = match revision.starts_with("refs/") {
                true => revision.clone(),
                false => revision.replace('/', "%2F"),
            };
            write!(f, "@{revision}")?;
        }
        self.file.as_ref().map_or(Ok(()), |file| write!(f, "/{file}"))
    }
}

/// A revision ends at the first slash, but for `refs/pr/1`.
fn split_revision(text: &str) -> (&str, Option<&str>) {
    let parts = if text.starts_with("refs/") { 3 } else { 1 };
    match text.match_indices('/').nth(parts - 1) {
        Some((at, _)) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Whether it may be a part of a repository's name, and so of a folder's.
fn is_plain(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !part.is_empty() && part.chars().all(allowed) && !part.starts_with('.') && !part.contains("..")
}

/// Whether it is a path that stays below the folder it is joined to.
pub(crate) fn is_relative(path: &str) -> bool {
    let inside = |part: &str| !matches!(part, "" | "." | "..");
    path.split('/').all(inside) && !path.contains(['\\', '\0', ':'])
}

/// Whether it is the whole hash of a commit.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_and_put_together() {
        let cases = [
            ("hf:timm/resnet50.a1_in1k", "timm/resnet50.a1_in1k", None, None),
            ("hf:a/b@v1", "a/b", Some("v1"), None),
            ("hf:a/b/x/y.pth", "a/b", None, Some("x/y.pth")),
            ("hf:a/b@main/x@2.pth", "a/b", Some("main"), Some("x@2.pth")),
            ("hf:a/b@refs/pr/7/x.pth", "a/b", Some("refs/pr/7"), Some("x.pth")),
            ("hf:a/b@refs/pr/7", "a/b", Some("refs/pr/7"), None),
            ("hf:a/b@my%2Fbranch/x.pth", "a/b", Some("my/branch"), Some("x.pth")),
        ];
        for (text, id, revision, file) in cases {
            let name: Name = text.parse().unwrap();
            assert_eq!(name.repo_id(), id, "{text}");
            assert_eq!(
                (name.revision.as_deref(), name.file.as_deref()),
                (revision, file),
                "{text}"
            );
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn what_would_leave_the_cache_is_refused() {
        for text in [
            "hf:gpt2",
            "hf:/b",
            "hf:a/",
            "hf:a/..",
            "hf:a b/c",
            "hf:a/b@",
            "hf:a/b@/x",
            "hf:a/b@..%2F..%2Fx",
            "hf:a/b/../../x",
            "hf:a/b//x",
            "hf:a/b/",
            "hf://a/b",
        ] {
            let refused = text.parse::<Name>().unwrap_err().to_string();
            assert!(refused.contains(text) && refused.contains("hf:owner/name"), "{refused}");
        }
    }
}
