//! One repository of a hub, and what is kept of it.

use std::path::PathBuf;

use serde_json::Value;

use crate::cache::Cache;
use crate::choose::listed;
use crate::client::{Answer, COMMIT, Client, Failure, Status, number, text};
use crate::download::Download;
use crate::name::{is_commit, is_relative};
use crate::retry::Retry;
use crate::{Error, Name, Result, Settings};

/// The list of a repository's files is JSON of this many bytes at most.
const LARGEST_LISTING: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Repo<'a> {
    name: &'a Name,
    client: Client<'a>,
    pub(crate) cache: Cache,
}

/// What the hub says of a file.
struct About {
    commit: String,
    etag: String,
    size: Option<u64>,
}

impl<'a> Repo<'a> {
    pub(crate) fn new(name: &'a Name, settings: &'a Settings) -> Self {
        Repo { name, client: Client::new(settings), cache: Cache::new(&settings.cache, name) }
    }

    fn settings(&self) -> &Settings {
        self.client.settings
    }

    /// The commit that the revision is at, and the paths of its files. Where the hub does not
    /// answer, those that are kept.
    pub(crate) fn listing(&self) -> Result<(String, Vec<String>)> {
        let revision = self.name.revision();
        let kept = || {
            let commit = self.cache.commit_of(revision)?;
            let files = self.cache.files(&commit);
            (!files.is_empty()).then_some((commit, files))
        };
        if self.settings().offline {
            return kept().ok_or_else(|| self.not_cached("nothing of this revision"));
        }
        self.ask(kept, || self.ask_listing(), None)
    }

    /// The file at `revision`, and the commit it is of: fetched, if it is not kept yet.
    pub(crate) fn file(&self, revision: &str, file: &str) -> Result<(String, PathBuf)> {
        let kept = || Some((self.cache.commit_of(revision)?, self.cache.find(revision, file)?));
        if is_commit(revision)
            && let Some(found) = kept()
        {
            return Ok(found);
        }
        if self.settings().offline {
            return kept().ok_or_else(|| self.not_cached(file));
        }
        let url = self.client.file_url(&self.name.repo_id(), revision, file);
        let about = self.ask(|| kept().map(Err), || self.ask_file(&url).map(Ok), Some(file))?;
        match about {
            Ok(about) => self.fetch(&about, file).map(|path| (about.commit, path)),
            Err(kept) => Ok(kept),
        }
    }

    /// What `request` brings at once; else what is `kept`; else what it brings when it is tried
    /// again. A hub that says that there is no such thing is believed.
    fn ask<T>(
        &self,
        kept: impl FnOnce() -> Option<T>,
        request: impl Fn() -> std::result::Result<T, Problem>,
        file: Option<&str>,
    ) -> Result<T> {
        let mut retry = Retry::new(self.settings().pause);
        let mut kept = Some(kept);
        loop {
            let failure = match request() {
                Ok(found) => return Ok(found),
                Err(Problem::Final(error)) => return Err(error),
                Err(Problem::Failure(failure)) => failure,
            };
            let absent = matches!(&failure, Failure::Status(status) if status.code == 404);
            if let Some(found) = kept.take().filter(|_| !absent).and_then(|kept| kept()) {
                if self.settings().progress {
                    eprintln!("note: {failure}; {} is what was fetched before", self.name);
                }
                return Ok(found);
            }
            if let Err(problem) = retry.wait(&failure) {
                return Err(match failure {
                    Failure::Status(status) => self.refused(&status, file, problem),
                    _ => Error::Unreachable {
                        name: self.name.to_string(),
                        problem: format!(
                            "{problem}. The hub is {} (HF_ENDPOINT); what is kept in {} is used \
                             without it",
                            self.settings().endpoint,
                            self.settings().cache.display()
                        ),
                    },
                });
            }
        }
    }

    fn ask_listing(&self) -> std::result::Result<(String, Vec<String>), Problem> {
        let url = self.client.listing_url(&self.name.repo_id(), self.name.revision());
        let mut answer = self.client.get(&url, 0).map_err(Problem::Failure)?;
        let body = answer.body_mut().with_config().limit(LARGEST_LISTING).read_to_vec();
        let body = body.map_err(|e| Problem::Failure(crate::client::failure(e, &url)))?;
        let strange = |what: &str| Problem::Final(self.strange(what));
        let json: Value = serde_json::from_slice(&body)
            .map_err(|_| strange("a list of files that is no JSON"))?;
        let commit = json["sha"].as_str().filter(|commit| is_commit(commit));
        let commit = commit.ok_or_else(|| strange("a list of files without a commit"))?;
        let siblings = json["siblings"].as_array();
        let siblings = siblings.ok_or_else(|| strange("no list of files"))?;
        let names = siblings.iter().filter_map(|file| file["rfilename"].as_str());
        // What would leave the folder is no file of a repository.
        let names = names.filter(|name| is_relative(name)).map(str::to_owned);
        Ok((commit.to_owned(), names.collect()))
    }

    fn ask_file(&self, url: &str) -> std::result::Result<About, Problem> {
        let answer = self.client.head(url).map_err(Problem::Failure)?;
        self.about(&answer).map_err(Problem::Final)
    }

    fn about(&self, answer: &Answer) -> Result<About> {
        let headers = answer.headers();
        let commit = text(headers, COMMIT).filter(|commit| is_commit(commit));
        let commit = commit.ok_or_else(|| self.strange("no commit with the file"))?;
        let linked = text(headers, "x-linked-etag");
        let etag = linked.or_else(|| text(headers, "etag")).and_then(|etag| normalised(&etag));
        let etag = etag.ok_or_else(|| self.strange("no ETag with the file"))?;
        let own = || {
            // That of a redirect's own text says nothing.
            let direct = answer.status().is_success();
            direct.then(|| number(headers, "content-length")).flatten()
        };
        let size = number(headers, "x-linked-size").or_else(own);
        Ok(About { commit, etag, size })
    }

    /// Fetches what is not kept yet.
    fn fetch(&self, about: &About, file: &str) -> Result<PathBuf> {
        let About { commit, etag, size } = about;
        let pointer = self.cache.pointer(commit, file);
        if pointer.is_file() {
            return Ok(pointer);
        }
        self.cache.prepare(commit, file)?;
        let title = Name { file: Some(file.to_owned()), ..self.name.clone() }.to_string();
        let lock = self.cache.lock(etag, || {
            if self.settings().progress {
                eprintln!("note: another process fetches {title}; waiting for it");
            }
        })?;
        let blob = self.cache.blob(etag);
        if !blob.is_file() {
            let download = Download {
                client: &self.client,
                title,
                // Of the commit, whatever becomes of the branch meanwhile.
                url: self.client.file_url(&self.name.repo_id(), commit, file),
                etag,
                size: *size,
                blob,
                locked: lock.is_some(),
            };
            download.run()?;
        }
        self.cache.link(etag, commit, file)
    }

    /// What the hub refuses, and what to do; `problem` is what it said.
    fn refused(&self, status: &Status, file: Option<&str>, problem: String) -> Error {
        let Settings { endpoint, token, .. } = self.settings();
        let page = format!("{endpoint}/{}", self.name.repo_id());
        let login = "set HF_TOKEN, or log in with `hf auth login`";
        let revision = self.name.revision();
        let problem = match (status.code, status.error.as_deref(), token) {
            (404, Some("RevisionNotFound"), _) => {
                format!("the repository has no branch, tag or commit {revision:?}")
            }
            (404, Some("EntryNotFound"), _) => {
                let files = self.ask_listing();
                let files =
                    files.map_or(String::new(), |(_, files)| format!(". {}", listed(&files)));
                format!("there is no file {:?} at {revision}{files}", file.unwrap_or_default())
            }
            (_, Some("GatedRepo"), None) => format!(
                "the repository asks for consent to its licence: accept it at {page}, and {login}"
            ),
            (_, Some("GatedRepo"), Some(token)) => format!(
                "the repository asks for consent to its licence: accept it at {page} with the \
                 account of the token from {}",
                token.origin()
            ),
            (401, _, None) | (404, _, None) => format!(
                "there is no such repository ({problem}), or it is private: look at {page}; if it \
                 is yours to read, {login}"
            ),
            (401, _, Some(token)) => format!(
                "the hub does not accept the token from {} ({problem}), or there is no such \
                 repository: look at {page}, and {login} anew",
                token.origin()
            ),
            (403, _, token) => {
                let whose = token.as_ref().map_or_else(
                    || login.to_owned(),
                    |token| format!("the token from {} needs the right to read it", token.origin()),
                );
                format!("it may not be read ({problem}): {whose}")
            }
            (404, _, Some(token)) => format!(
                "there is no such repository ({problem}), or the token from {} may not see it: \
                 look at {page}",
                token.origin()
            ),
            _ => {
                let name = self.name.to_string();
                return Error::Unreachable { name, problem };
            }
        };
        Error::Refused { name: self.name.to_string(), problem }
    }

    fn strange(&self, what: &str) -> Error {
        let problem = format!(
            "{} sends {what}, as no hub does: look at HF_ENDPOINT, and for a proxy in between",
            self.settings().endpoint
        );
        Error::Damaged { name: self.name.to_string(), problem }
    }

    fn not_cached(&self, what: &str) -> Error {
        let Settings { cache, .. } = self.settings();
        let problem = format!(
            "HF_HUB_OFFLINE is set, and {what} is not kept in {}: fetch it once without",
            cache.display()
        );
        Error::NotCached { name: self.name.to_string(), problem }
    }
}

/// Why a question has no answer.
enum Problem {
    Failure(Failure),
    Final(Error),
}

/// An ETag as the name of a file; none if it can't be one.
fn normalised(etag: &str) -> Option<String> {
    let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = !etag.is_empty() && etag.len() <= 128 && !etag.starts_with('.');
    (is_name && etag.bytes().all(plain)).then(|| etag.to_owned())
}
