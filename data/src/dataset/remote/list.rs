//! Which objects a data set consists of.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use storage::{Location, Object, Scheme, Storage};
use words::counted;

use super::super::braces;
use super::super::cache::{Cache, Key};
use super::super::kind::Kind;
use super::super::listing::{Check, Form, Listing, Request, in_list};
use super::super::names::Names;
use super::Remote;
use crate::names::python_order;
use crate::{Error, Result, text};

/// Sizes, times and ETags of objects, by number.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in super::super) struct Objects {
    /// In bytes; [`Objects::GONE`] for one that is not there.
    pub(super) sizes: Vec<u64>,
    /// In nanoseconds since 1970.
    pub(super) modified: Vec<u64>,
    /// Empty where the store has none.
    pub(super) etags: Names,
}

impl Objects {
    const GONE: u64 = u64::MAX;

    /// One more; none if it is not there.
    pub(in super::super) fn push(&mut self, object: Option<&Object>) {
        let since = |object: &Object| object.modified.duration_since(SystemTime::UNIX_EPOCH).ok();
        let nanos = object.and_then(since).map_or(0, |since| since.as_nanos() as u64);
        self.sizes.push(object.map_or(Self::GONE, |object| object.size));
        self.modified.push(nanos);
        self.etags.push(object.and_then(|object| object.etag.as_deref()).unwrap_or("").as_bytes());
    }

    /// Number `index` of `other`, as one more.
    pub(in super::super) fn take(&mut self, other: &Objects, index: usize) {
        self.sizes.push(other.sizes[index]);
        self.modified.push(other.modified[index]);
        self.etags.push(other.etags.get(index).as_os_str().as_bytes());
    }

    pub(in super::super) fn len(&self) -> usize {
        self.sizes.len()
    }

    pub(in super::super) fn is_gone(&self, index: usize) -> bool {
        self.sizes[index] == Self::GONE
    }

    /// Object `index`, which is called `name` in `base`.
    pub(in super::super) fn object(
        &self,
        index: usize,
        name: &Path,
        base: &Location,
    ) -> Result<Object> {
        let name = name.to_str().unwrap_or_default();
        let etag = self.etags.get(index).to_str().filter(|etag| !etag.is_empty());
        Ok(Object {
            location: base.join(name)?,
            size: self.sizes[index],
            etag: etag.map(str::to_owned),
            modified: SystemTime::UNIX_EPOCH + Duration::from_nanos(self.modified[index]),
        })
    }
}

/// Lists what `request`, which is the location `at`, asks for. What lies below a prefix is kept and
/// taken again until it is to be listed anew.
///
/// # Errors
/// [`Error::Storage`], and those of the check of class folders.
pub(in super::super) fn list(
    request: Request,
    at: &Location,
    remote: &Remote,
    cache: &Cache,
) -> Result<(Form, Listing)> {
    let storage = remote.reader.storage();
    let base = &remote.base;
    let text = request.path().to_str().unwrap_or_default();
    if let Request::Classes(_, check) = request {
        let listing = of_folder(base, storage, cache)?;
        return Ok((Form::Folder, in_classes(listing, check)?));
    }
    if text.contains('{') {
        let names = braces::expand(text)?;
        let names = names.iter().filter_map(|name| name.to_str());
        let objects = names.map(Location::parse).collect::<std::result::Result<Vec<_>, _>>()?;
        return Ok((Form::Pattern, of_objects(base, storage, &objects)?));
    }
    if at.is_folder() {
        return Ok((Form::Folder, of_folder(base, storage, cache)?));
    }
    if Kind::of(at.file_name().as_bytes()) != Kind::Other {
        storage.head(at)?;
        return Ok((Form::File, of_objects(base, storage, std::slice::from_ref(at))?));
    }
    Ok((Form::File, of_list(at, base, storage)?))
}

/// The objects below `base`, hidden ones left out, in the order in which a folder is walked.
fn of_folder(base: &Location, storage: &Storage, cache: &Cache) -> Result<Listing> {
    let key = Key::of_url("objects", &base.to_string());
    if let Some((made, listing)) = cache.objects(&key) {
        tracing::warn!(
            "{base}: {}, as listed {} ago; --refresh-index lists anew",
            counted(listing.names.len() + listing.others, "object"),
            age(made),
        );
        return Ok(listing);
    }
    let counted = base.clone();
    let found = storage.list(base, move |count| {
        if count % 100_000 == 0 {
            tracing::warn!("{counted}: listing, {count} objects so far");
        }
    });
    let mut objects = found.map_err(|error| not_listed(base, error))?;
    // As names in folders are sorted: part by part.
    objects.sort_by_cached_key(|object| object.location.key().replace('/', "\0"));
    let mut listing = Listing::new();
    for object in &objects {
        let Some(name) = object.location.name_in(base) else { continue };
        if name.split('/').any(|part| part.starts_with('.')) {
            continue;
        }
        match Kind::of(name.as_bytes()) {
            Kind::Other => listing.others += 1,
            kind => listing.push_object(Path::new(name), kind, Some(object)),
        }
    }
    cache.keep_objects(&key, &listing);
    Ok(listing)
}

fn not_listed(base: &Location, error: storage::Error) -> Error {
    match base.scheme() {
        Scheme::Http => Error::Data(format!(
            "{error}; a web server lists its files only if it speaks WebDAV: name shards \
             ({base}shards-{{000..099}}.tar) or a text file with a name a line",
        )),
        _ => error.into(),
    }
}

fn age(made: SystemTime) -> String {
    let minutes = made.elapsed().unwrap_or_default().as_secs() / 60;
    match minutes {
        0..120 => format!("{minutes} minutes"),
        120..2880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    }
}

/// The classes of a listing, without what lies in none; or shards without classes, all of them.
fn in_classes(listing: Listing, check: Check) -> Result<Listing> {
    let class = |name: &Path| {
        let mut parts = name.components();
        let first = parts.next()?.as_os_str().to_owned();
        parts.next().map(|_| first)
    };
    let classes: BTreeSet<OsString> = listing.names.iter().filter_map(class).collect();
    let mut classes: Vec<OsString> = classes.into_iter().collect();
    classes.sort_by_cached_key(|class| python_order(class));
    if classes.is_empty() {
        listing.check_classes(check)?;
        return Ok(listing);
    }
    check(&classes)?;
    let mut labelled = Listing { classes, others: listing.others, ..Listing::new() };
    for (index, (name, kind)) in listing.entries().enumerate() {
        if class(name).is_some() {
            labelled.take(&listing, index, name, kind);
        }
    }
    Ok(labelled)
}

/// Objects that were named; one that is not there is to be found unreadable.
fn of_objects(base: &Location, storage: &Storage, named: &[Location]) -> Result<Listing> {
    /// Requests on their way.
    const AT_A_TIME: usize = 64;
    let mut listing = Listing::new();
    let mut begun = std::collections::VecDeque::new();
    let mut waiting = named.iter();
    let mut gone = Vec::new();
    loop {
        while begun.len() < AT_A_TIME {
            let Some(at) = waiting.next() else { break };
            begun.push_back((at, storage.start_head(at)));
        }
        let Some((at, head)) = begun.pop_front() else { break };
        let object = match head.wait() {
            Ok(object) => Some(object),
            Err(error) if error.is_not_found() => {
                gone.push(error);
                None
            }
            Err(error) => return Err(error.into()),
        };
        let name = at.name_in(base).ok_or_else(|| {
            Error::invalid("object", at, format!("all objects of a data set must lie in {base}"))
        })?;
        let kind = match Kind::of(name.as_bytes()) {
            // An archive may be called anything.
            Kind::Other => Kind::Shard,
            kind => kind,
        };
        listing.push_object(Path::new(name), kind, object.as_ref());
    }
    if let Some(first) = gone.first()
        && gone.len() == named.len()
    {
        return Err(first.clone().into());
    }
    Ok(listing)
}

/// The objects that the text file at `at` names, a line each, relative to its folder.
fn of_list(at: &Location, base: &Location, storage: &Storage) -> Result<Listing> {
    /// More than any list has.
    const MOST: u64 = 1 << 30;
    let object = storage.head(at).map_err(|error| match error.is_not_found() {
        true => Error::Data(format!("{error}; a prefix of images ends with a slash: {at}/")),
        false => error.into(),
    })?;
    if object.size > MOST {
        let rule = format!("a list of objects has at most {MOST} bytes");
        return Err(Error::invalid("size of the list", format!("{} bytes", object.size), rule));
    }
    let (_, bytes) = storage.read_all(at)?;
    let path = Path::new("");
    let mut named = Vec::new();
    let shown = at.to_string();
    for (number, line) in text::lines(Path::new(&shown), bytes.into())? {
        if line.starts_with(b"#") {
            continue;
        }
        let name = in_list(&line, path);
        let name = name.to_str().unwrap_or_default();
        let object = match Location::is_one(name) {
            true => Location::parse(name)?,
            false => base.join(name)?,
        };
        if Kind::of(object.file_name().as_bytes()) == Kind::Other {
            return Err(Error::Data(format!(
                "{shown}:{number}: {object} is neither an image nor a .tar shard; a list holds one \
                 name a line and nothing else",
            )));
        }
        named.push(object);
    }
    of_objects(base, storage, &named)
}
