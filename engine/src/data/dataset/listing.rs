//! The names of a data set's images and shards.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::cache::{Cache, Key};
use super::evidence::Evidence;
use super::kind::Kind;
use super::names::Names;
use super::walk::{Entry, Found, Start, read_folder, walk};
use super::wire::{Reader, Writer};
use super::{ARRAY, PICTURES, braces};
use crate::{Error, Result};

/// Says whether class folders of these names, sorted, will do.
pub(super) type Check<'a> = &'a dyn Fn(&[OsString]) -> Result<()>;

/// What is to be listed.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    /// What [`Dataset::open`](super::Dataset::open) takes.
    Any(&'a Path),
    /// A folder of class folders: what lies in these.
    Classes(&'a Path, Check<'a>),
}

/// What a request turned out to be, which says what names are relative to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Form {
    Folder,
    Pattern,
    File,
}

impl Request<'_> {
    pub(super) fn path(&self) -> &Path {
        let (Request::Any(path) | Request::Classes(path, _)) = self;
        path
    }

    /// What names are relative to.
    pub(super) fn base(&self, form: Form) -> &Path {
        match form {
            Form::Folder => self.path(),
            Form::Pattern => common_folder(self.path()),
            Form::File => self.path().parent().unwrap_or(Path::new("")),
        }
    }

    /// What it is, on this machine's disks.
    fn form(&self) -> Form {
        match self.path().to_str() {
            Some(pattern) if pattern.contains('{') && !self.path().exists() => Form::Pattern,
            _ if self.path().is_dir() => Form::Folder,
            _ => Form::File,
        }
    }
}

/// The deepest folder that everything a brace pattern names lies in.
fn common_folder(pattern: &Path) -> &Path {
    let is_plain = |part: &&Path| !part.as_os_str().as_bytes().contains(&b'{');
    pattern.ancestors().find(is_plain).unwrap_or(Path::new(""))
}

/// Images and shards by name, of any kind: which of them a data set takes is decided later.
#[derive(Debug, PartialEq)]
pub(super) struct Listing {
    /// Relative to the base of what was listed.
    pub names: Names,
    /// What each of `names` is.
    pub kinds: Vec<Kind>,
    /// Files that are neither.
    pub others: usize,
    /// The class folders, if those were listed.
    pub classes: Vec<OsString>,
}

impl Listing {
    fn new() -> Self {
        Listing { names: Names::default(), kinds: Vec::new(), others: 0, classes: Vec::new() }
    }

    /// Lists what `request` asks for, from the cache where that holds.
    ///
    /// # Errors
    /// As [`Dataset::open`](super::Dataset::open), and those of the check of class folders.
    pub(super) fn of(request: Request, cache: &Cache) -> Result<(Form, Listing)> {
        let path = request.path();
        let form = match request {
            Request::Any(_) => request.form(),
            Request::Classes(..) => Form::Folder,
        };
        if form == Form::Folder {
            return Ok((form, Self::of_folder(request, cache)?));
        }
        let paths = match (form, path.to_str()) {
            (Form::Pattern, Some(pattern)) => braces::expand(pattern)?,
            _ => vec![path.to_owned()],
        };
        let mut listing = Listing::new();
        let base = request.base(form);
        paths.iter().try_for_each(|path| listing.add(base, path))?;
        Ok((form, listing))
    }

    /// Adds a folder, a shard, an image or a list.
    fn add(&mut self, base: &Path, path: &Path) -> Result<()> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        let relative = path.strip_prefix(base).unwrap_or(path);
        if metadata.is_dir() {
            return self.add_folders(base, vec![Start::at(relative, false)], &mut Evidence::new());
        }
        if !self.add_file(relative) {
            self.add_list(base, path)?;
        }
        Ok(())
    }

    /// Adds a file by its extension; false if that is neither an image's nor a shard's.
    fn add_file(&mut self, relative: &Path) -> bool {
        let name = relative.as_os_str().as_bytes();
        let kind = Kind::of(name);
        if kind == Kind::Other {
            return false;
        }
        self.names.push(name);
        self.kinds.push(kind);
        true
    }

    fn add_folders(
        &mut self,
        base: &Path,
        starts: Vec<Start>,
        evidence: &mut Evidence,
    ) -> Result<()> {
        walk(base, starts, evidence, |found| match found {
            Found::File(path) if self.add_file(path) => {}
            _ => self.others += 1,
        })
    }

    fn add_list(&mut self, base: &Path, list: &Path) -> Result<()> {
        let bytes = std::fs::read(list).map_err(|e| Error::io(list, e))?;
        let problem = |what: String| Error::Data(format!("{}{what}", list.display()));
        if bytes.contains(&0) {
            let expected =
                "neither a folder, an image, a .tar shard nor a text list of image paths";
            let known = PICTURES.join(", ");
            return Err(problem(format!(": {expected} (image extensions: {known}, {ARRAY})")));
        }
        let folder = list.parent().unwrap_or(Path::new(""));
        for (number, line) in bytes.split(|&b| b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let path = folder.join(OsStr::from_bytes(line));
            if !self.add_file(path.strip_prefix(base).unwrap_or(&path)) {
                return Err(problem(format!(
                    ":{}: {:?} is not the path of an image ({}, {ARRAY}) or a .tar shard; a list \
                     holds one path a line and nothing else",
                    number + 1,
                    String::from_utf8_lossy(line),
                    PICTURES.join(", "),
                )));
            }
        }
        Ok(())
    }

    fn of_folder(request: Request, cache: &Cache) -> Result<Listing> {
        let folder = request.path();
        if matches!(request, Request::Classes(..))
            && !std::fs::metadata(folder).map_err(|e| Error::io(folder, e))?.is_dir()
        {
            return Err(Error::Data(format!(
                "{}: not a folder; images are read from one folder a class",
                folder.display(),
            )));
        }
        let what = match request {
            Request::Any(_) => "folder",
            Request::Classes(..) => "class folders",
        };
        let key = Key::new(what, folder, Path::new(""));
        if let Some(listing) = cache.listing(key.as_ref(), folder) {
            if let Request::Classes(_, check) = request {
                check(&listing.classes)?;
            }
            return Ok(listing);
        }
        let begun = SystemTime::now();
        let (mut listing, mut evidence) = (Listing::new(), Evidence::new());
        let mut starts = vec![Start::at("", false)];
        if let Request::Classes(_, check) = request {
            let contents = read_folder(folder, &starts[0])?;
            evidence.add(folder, Path::new(""), &contents);
            let classes = contents.entries.into_iter().filter_map(|(name, entry)| match entry {
                Entry::Folder { linked } => Some((name, linked)),
                Entry::Loop => Some((name, true)),
                _ => None,
            });
            (listing.classes, starts) =
                classes.map(|(name, linked)| (name.clone(), Start::at(name, linked))).unzip();
            check(&listing.classes)?;
        }
        listing.add_folders(folder, starts, &mut evidence)?;
        cache.keep_listing(key.as_ref(), &listing, &evidence, begun);
        Ok(listing)
    }

    /// The shards' names.
    pub(super) fn shards(&self) -> Vec<PathBuf> {
        self.entries()
            .filter(|&(_, kind)| kind == Kind::Shard)
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    /// Names with what they are.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Path, Kind)> {
        self.names.iter().zip(self.kinds.iter().copied())
    }

    pub(super) fn write(&self, to: &mut Writer) {
        self.names.write(to);
        to.count(self.others);
        to.count(self.classes.len());
        self.classes.iter().for_each(|class| to.text(class.as_bytes()));
    }

    pub(super) fn read(from: &mut Reader) -> Option<Self> {
        let names = Names::read(from)?;
        let kinds = names.iter().map(|name| Kind::of(name.as_os_str().as_bytes())).collect();
        let others = from.count()?;
        let classes = from.many(|from| Some(OsStr::from_bytes(from.text()?).to_owned()))?;
        Some(Listing { names, kinds, others, classes })
    }
}

impl Form {
    const ALL: [Form; 3] = [Form::Folder, Form::Pattern, Form::File];

    pub(super) fn write(self, to: &mut Writer) {
        to.number(self as u64);
    }

    pub(super) fn read(from: &mut Reader) -> Option<Self> {
        Form::ALL.get(from.count()?).copied()
    }
}
