//! The names of a data set's images and shards.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use storage::{Location, Object};

use super::archive::Format;
use super::cache::{Cache, Key};
use super::evidence::Evidence;
use super::kind::Kind;
use super::names::Names;
use super::remote::Objects;
use super::walk::{Entry, Found, Start, read_folder, walk};
use super::wire::{Reader, Writer};
use super::{ARRAY, PICTURES, braces, remote};
use crate::names::{python_order, quoted, readable_bytes};
use crate::{Error, Result, text};

/// Says whether class folders of these names, sorted, will do.
pub(super) type Check<'a> = &'a dyn Fn(&[OsString]) -> Result<()>;

/// What is to be listed.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    /// What [`Dataset::open`](super::Dataset::open) takes.
    Any(&'a Path),
    /// A folder of class folders: what lies in these; or one of shards and no folders.
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

    /// What it is, on this machine's disks or in a store.
    pub(super) fn form(&self) -> Form {
        let is_classes = matches!(self, Request::Classes(..));
        match self.path().to_str() {
            Some(url) if Location::is_one(url) => match () {
                () if is_classes => Form::Folder,
                () if url.contains('{') => Form::Pattern,
                // A bucket alone is one too.
                () if Location::parse(url).is_ok_and(|at| at.is_folder()) => Form::Folder,
                () => Form::File,
            },
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
    /// Of a listing of objects, what is known of each of `names`; else empty.
    pub objects: Objects,
}

impl Listing {
    pub(super) fn new() -> Self {
        Listing {
            names: Names::default(),
            kinds: Vec::new(),
            others: 0,
            classes: Vec::new(),
            objects: Objects::default(),
        }
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
        if self.add_file(relative) {
            return Ok(());
        }
        // An archive may be called anything. A pipe is no archive, and is read only once.
        let format = if metadata.is_file() { Format::of_file(path)? } else { Format::Unknown };
        format.refuse_packed(path)?;
        match format {
            Format::Tar | Format::Compressed(_) => self.push(relative, Kind::Shard),
            _ => self.add_list(base, path)?,
        }
        Ok(())
    }

    /// Adds a file by its extension; false if that is neither an image's nor a shard's.
    fn add_file(&mut self, relative: &Path) -> bool {
        let kind = Kind::of(relative.as_os_str().as_bytes());
        if kind != Kind::Other {
            self.push(relative, kind);
        }
        kind != Kind::Other
    }

    /// Adds an object; none if it is not there.
    pub(super) fn push_object(&mut self, name: &Path, kind: Kind, object: Option<&Object>) {
        self.push(name, kind);
        self.objects.push(object);
    }

    /// Adds number `index` of another listing of objects, which has this name and kind.
    pub(super) fn take(&mut self, other: &Listing, index: usize, name: &Path, kind: Kind) {
        self.push(name, kind);
        self.objects.take(&other.objects, index);
    }

    fn push(&mut self, relative: &Path, kind: Kind) {
        self.names.push(relative.as_os_str().as_bytes());
        self.kinds.push(kind);
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
        let folder = list.parent().unwrap_or(Path::new(""));
        for (number, line) in text::lines(list, bytes).map_err(|error| no_list(&error))? {
            if line.starts_with(b"#") {
                continue;
            }
            let path = in_list(&line, folder);
            if let Some(object) = remote::location(Path::new(OsStr::from_bytes(&line)))? {
                return Err(Error::Data(format!(
                    "{}:{number}: {object} lies in a store, and the list on this machine: a list of \
                     objects is to lie in the store too",
                    list.display(),
                )));
            }
            if !self.add_file(path.strip_prefix(base).unwrap_or(&path)) {
                return Err(Error::Data(format!(
                    "{}:{number}: {} is not the path of an image ({}, {ARRAY}) or a .tar shard; a \
                     list holds one path a line and nothing else: no labels, no other columns and \
                     no head",
                    list.display(),
                    quoted(&readable_bytes(&line)),
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
                listing.check_classes(check)?;
            }
            return Ok(listing);
        }
        let begun = SystemTime::now();
        let (mut listing, mut evidence) = (Listing::new(), Evidence::new());
        let mut starts = vec![Start::at("", false)];
        if let Request::Classes(_, check) = request {
            let contents = read_folder(folder, &starts[0], &HashSet::new())?;
            let is_folder = |entry: &Entry| matches!(entry, Entry::Folder { .. } | Entry::Loop);
            let (mut classes, files): (Vec<_>, Vec<_>) = contents
                .entries
                .iter()
                .map(|(name, entry)| (name, *entry))
                .partition(|(_, entry)| is_folder(entry));
            let is_shard = |name: &OsString| Kind::of(name.as_bytes()) == Kind::Shard;
            if !classes.is_empty() || !files.iter().any(|(name, _)| is_shard(name)) {
                evidence.add(folder, Path::new(""), &contents);
                classes.sort_by_cached_key(|(name, _)| python_order(name));
                listing.classes = classes.iter().map(|&(name, _)| name.clone()).collect();
                // A link back up adds nothing, so that the class it would be has no images.
                let start = |(name, entry): (&OsString, Entry)| match entry {
                    Entry::Folder { linked } => Some(Start::within(&contents, name, linked)),
                    _ => None,
                };
                starts = classes.into_iter().filter_map(start).collect();
                check(&listing.classes)?;
            }
        }
        listing.add_folders(folder, starts, &mut evidence)?;
        cache.keep_listing(key.as_ref(), &listing, &evidence, begun);
        Ok(listing)
    }

    /// Whether the class folders will do; none are needed where there are shards, which may have
    /// labels of their own.
    pub(super) fn check_classes(&self, check: Check) -> Result<()> {
        if self.classes.is_empty() && self.kinds.contains(&Kind::Shard) {
            return Ok(());
        }
        check(&self.classes)
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
        self.kinds.iter().for_each(|&kind| to.number(kind as u64));
        to.count(self.others);
        to.count(self.classes.len());
        self.classes.iter().for_each(|class| to.text(class.as_bytes()));
        self.objects.write(to);
    }

    pub(super) fn read(from: &mut Reader) -> Option<Self> {
        let names = Names::read(from)?;
        let kind = |_| Kind::ALL.get(from.count()?).copied();
        let kinds = (0..names.len()).map(kind).collect::<Option<_>>()?;
        let others = from.count()?;
        let classes = from.many(|from| Some(OsStr::from_bytes(from.text()?).to_owned()))?;
        Some(Listing { names, kinds, others, classes, objects: Objects::read(from)? })
    }
}

/// What a file is that was taken for a list, and isn't one.
fn no_list(error: &Error) -> Error {
    let known = PICTURES.join(", ");
    Error::Data(format!(
        "{error}; it is neither a folder, an image, a .tar shard nor a text list of image paths \
         (image extensions: {known}, {ARRAY})"
    ))
}

/// The path in the `line` of a list in `folder`: without quotes around it, `~` being the user's
/// home.
pub(super) fn in_list(line: &[u8], folder: &Path) -> PathBuf {
    let bare = match line {
        [first @ (b'"' | b'\''), bare @ .., last] if first == last => bare,
        line => line,
    };
    let path = Path::new(OsStr::from_bytes(bare));
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) if !folder.join("~").exists() => home.join(rest),
        _ => folder.join(path),
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
