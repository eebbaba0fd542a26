//! What the hub has.

use std::collections::BTreeMap;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde_json::{Value, json};

use crate::http::{Reply, Request};

/// Who may read a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    #[default]
    All,
    /// Who has this token.
    Private(String),
    /// Nobody, before the licence is accepted.
    Gated,
}

/// A file: large ones lie on the CDN.
#[derive(Debug, Clone)]
pub struct File {
    bytes: Vec<u8>,
    large: bool,
}

/// A repository with its commits.
#[derive(Debug, Default)]
pub struct Repo {
    pub access: Access,
    /// Where it is now, if it was renamed.
    pub moved_to: Option<String>,
    commits: BTreeMap<String, BTreeMap<String, File>>,
    revisions: BTreeMap<String, String>,
}

impl Repo {
    /// A commit with these files, to which `revision` goes; its hash.
    pub fn commit(&mut self, revision: &str, files: &[(&str, File)]) -> String {
        let files: BTreeMap<_, _> =
            files.iter().map(|(path, file)| ((*path).to_owned(), file.clone())).collect();
        let mut text = format!("{revision} {}", self.commits.len());
        for (path, file) in &files {
            text += &format!("\n{path} {}", file.etag());
        }
        let commit = git_hash(text.as_bytes());
        self.commits.insert(commit.clone(), files);
        self.revisions.insert(revision.to_owned(), commit.clone());
        commit
    }

    fn resolve(&self, revision: &str) -> Option<&str> {
        let (commit, _) = self
            .commits
            .get_key_value(revision)
            .or_else(|| self.commits.get_key_value(self.revisions.get(revision)?))?;
        Some(commit)
    }
}

impl File {
    /// On the hub itself, as texts are.
    pub fn small(bytes: impl Into<Vec<u8>>) -> Self {
        File { bytes: bytes.into(), large: false }
    }

    /// On the CDN, as weights are.
    pub fn large(bytes: impl Into<Vec<u8>>) -> Self {
        File { bytes: bytes.into(), large: true }
    }

    pub fn etag(&self) -> String {
        if self.large { sha256(&self.bytes) } else { git_hash(&self.bytes) }
    }

    fn described(&self, path: &str) -> Value {
        let (oid, size) = (git_hash(&self.bytes), self.bytes.len());
        let mut json = json!({ "type": "file", "path": path, "oid": oid, "size": size });
        if self.large {
            json["lfs"] = json!({ "oid": self.etag(), "size": size, "pointerSize": 130 });
        }
        json
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    let mut hash = Context::new(&SHA256);
    hash.update(bytes);
    hex(hash)
}

/// What git calls the bytes.
pub fn git_hash(bytes: &[u8]) -> String {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(format!("blob {}\0", bytes.len()).as_bytes());
    hash.update(bytes);
    hex(hash)
}

fn hex(hash: Context) -> String {
    hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All repositories, by `owner/name`.
#[derive(Debug, Default)]
pub(crate) struct Repos(BTreeMap<String, Repo>);

impl Repos {
    pub(crate) fn entry(&mut self, id: &str) -> &mut Repo {
        self.0.entry(id.to_owned()).or_default()
    }

    /// The hub's answer.
    pub(crate) fn reply(&self, request: &Request, cdn: &str, ranged: bool) -> Reply {
        let path: Vec<String> = request.path.trim_matches('/').split('/').map(decoded).collect();
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        let (api, id, kind, rest) = match parts[..] {
            ["api", kind @ "resolve-cache", owner, name, ref rest @ ..] => {
                (true, format!("{owner}/{name}"), kind, rest)
            }
            ["api", "models", owner, name, kind, ref rest @ ..] => {
                (true, format!("{owner}/{name}"), kind, rest)
            }
            [owner, name, kind, ref rest @ ..] => (false, format!("{owner}/{name}"), kind, rest),
            _ => return error(404, "NotFound"),
        };
        let Some(repo) = self.0.get(&id) else { return error(401, "RepoNotFound") };
        if let Some(target) = &repo.moved_to {
            let location = request.path.replacen(&id, target, 1);
            return Reply::status(307).with("Location", location);
        }
        let token = request.header("authorization").and_then(|text| text.strip_prefix("Bearer "));
        match (&repo.access, token) {
            (Access::Private(wanted), given) if given != Some(wanted) => {
                return error(401, "RepoNotFound");
            }
            (Access::Gated, None) => return error(401, "GatedRepo"),
            (Access::Gated, Some(_)) => return error(403, "GatedRepo"),
            _ => {}
        }
        let Some((revision, file)) = rest.split_first() else { return error(404, "NotFound") };
        let Some(commit) = repo.resolve(revision) else { return error(404, "RevisionNotFound") };
        let files = &repo.commits[commit];
        match (api, kind) {
            (true, "revision") => json_reply(&info(&id, commit, files)),
            (true, "tree") => {
                let listed: Vec<Value> =
                    files.iter().map(|(path, file)| file.described(path)).collect();
                json_reply(&json!(listed))
            }
            (false, "resolve") => match files.get(&file.join("/")) {
                Some(found) if found.large => large(found, commit, cdn),
                // Texts lie on the hub itself, at another address.
                Some(_) => Reply::status(307)
                    .with(
                        "Location",
                        format!("/api/resolve-cache/{id}/{commit}/{}", file.join("/")),
                    )
                    .with("X-Repo-Commit", commit),
                None => error(404, "EntryNotFound").with("X-Repo-Commit", commit),
            },
            (true, "resolve-cache") => match files.get(&file.join("/")) {
                Some(found) => Reply::file(request, &found.bytes, ranged)
                    .with("ETag", format!("\"{}\"", found.etag()))
                    .with("X-Repo-Commit", commit),
                None => error(404, "EntryNotFound"),
            },
            _ => error(404, "NotFound"),
        }
    }

    /// The CDN's answer.
    pub(crate) fn blob(&self, request: &Request, ranged: bool) -> Reply {
        let hash = request.path.trim_start_matches("/blobs/");
        let commits = self.0.values().flat_map(|repo| repo.commits.values());
        let mut files = commits.flat_map(|files| files.values());
        match files.find(|file| file.large && file.etag() == hash) {
            Some(file) => Reply::file(request, &file.bytes, ranged).with("ETag", "\"of-the-cdn\""),
            None => Reply::status(403),
        }
    }
}

fn large(file: &File, commit: &str, cdn: &str) -> Reply {
    Reply::status(302)
        .with("Location", format!("{cdn}/blobs/{}?signature=secret", file.etag()))
        .with("X-Linked-Etag", format!("\"{}\"", file.etag()))
        .with("X-Linked-Size", file.bytes.len())
        .with("ETag", "\"of-the-redirect\"")
        .with("X-Repo-Commit", commit)
}

fn info(id: &str, commit: &str, files: &BTreeMap<String, File>) -> Value {
    let siblings: Vec<Value> = files.keys().map(|path| json!({ "rfilename": path })).collect();
    json!({ "id": id, "modelId": id, "sha": commit, "siblings": siblings, "private": false,
            "tags": [], "downloads": 0, "likes": 0 })
}

fn json_reply(value: &Value) -> Reply {
    let mut reply = Reply::status(200).with("Content-Type", "application/json");
    reply.body = value.to_string().into_bytes();
    reply
}

fn error(status: u16, code: &str) -> Reply {
    Reply::status(status)
        .with("X-Error-Code", code)
        .with("X-Error-Message", format!("it is {code}"))
}

/// A part of a path without its escapes.
fn decoded(part: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), part.as_bytes());
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()).filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
