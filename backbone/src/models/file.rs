//! Names of models that are files: `my.pt2`, or `my.pt2:STAGES` with the modules whose outputs are
//! the stages; the same on a hub, where a repository is named alone if it has one such file.

use std::borrow::Cow;
use std::path::Path;

use crate::graph::GraphModel;
use crate::{Error, Result, hub};

const ENDING: &str = ".pt2";

/// Whether a model's name is that of a file.
pub fn is_file(name: &str) -> bool {
    parts(name).is_some()
}

/// What a model is called in titles and in the names of files: a file without its folder and ending.
pub fn short_name(name: &str) -> &str {
    let stem = parts(name).and_then(|(path, _)| Path::new(path).file_stem()?.to_str());
    stem.unwrap_or(name)
}

/// The name of a file with these stages, separated by commas, in place of any that it has.
///
/// # Errors
/// The name is no file's.
pub fn with_stages(name: &str, stages: &str) -> Result<String> {
    let (path, _) = parts(name).ok_or_else(|| {
        let rule = format!("{name} is no {ENDING} file: a registered model has its own stages");
        Error::invalid("stages", stages, rule)
    })?;
    Ok(format!("{path}:{stages}"))
}

/// `name`, but for what lies on a hub: that of the file where it is fetched to. No bar is drawn for
/// `progress` off.
///
/// # Errors
/// Those of [`hub::local`].
pub fn local(name: &str, progress: bool) -> Result<Cow<'_, str>> {
    let Some((path, stages)) = parts(name).filter(|(path, _)| hub::is_name(path)) else {
        return Ok(Cow::Borrowed(name));
    };
    let path = hub::local_of(Path::new(path), hub::Want::Network, progress)?;
    let path = path.to_str().ok_or_else(|| {
        Error::invalid("the hub's cache folder", path.display(), "a model's name must be text")
    })?;
    Ok(Cow::Owned(stages.map_or(path.to_owned(), |stages| format!("{path}:{stages}"))))
}

/// Reads the file that `name` is.
pub(super) fn open(name: &str) -> Result<GraphModel> {
    let (path, stages) = parts(name).unwrap_or((name, None));
    let stages = stages.map_or_else(Vec::new, |list| list.split(',').map(str::trim).collect());
    if stages.iter().any(|stage| stage.is_empty()) {
        let rule = format!(
            "behind {ENDING}: stand the modules whose outputs are the stages, finest first, \
             separated by commas"
        );
        return Err(Error::invalid("model", format!("{name:?}"), rule));
    }
    let stages: Vec<String> = stages.into_iter().map(str::to_owned).collect();
    GraphModel::open(Path::new(path), &stages)
}

/// The file's path, and the stages that stand behind it, if `name` is a file's.
pub fn parts(name: &str) -> Option<(&str, Option<&str>)> {
    if name.ends_with(ENDING) {
        return Some((name, None));
    }
    if let Some((start, stages)) = name.rsplit_once(&format!("{ENDING}:")) {
        return Some((&name[..start.len() + ENDING.len()], Some(stages)));
    }
    // A repository; there is no colon in its name.
    let repository = name.strip_prefix(hub::PREFIX)?;
    match repository.split_once(':') {
        Some((_, stages)) => Some((&name[..name.len() - stages.len() - 1], Some(stages))),
        None => Some((name, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_a_model_by_its_ending() {
        for name in ["my.pt2", "/a/my.pt2", "my.pt2:layer1,layer2"] {
            assert!(is_file(name) && short_name(name) == "my", "{name}");
        }
        for name in ["resnet50", "my.pt", "my.pt2.safetensors"] {
            assert!(!is_file(name) && short_name(name) == name, "{name}");
        }
    }

    #[test]
    fn stages_stand_behind_the_name() {
        assert_eq!(parts("a.pt2:x/b.pt2:c,d"), Some(("a.pt2:x/b.pt2", Some("c,d"))));
        assert_eq!(parts("hf:a/b"), Some(("hf:a/b", None)));
        assert_eq!(parts("hf:a/b@v1:c,d"), Some(("hf:a/b@v1", Some("c,d"))));
        assert_eq!(parts("hf:a/b/x.pt2:c"), Some(("hf:a/b/x.pt2", Some("c"))));
        for name in ["a.pt2", "a.pt2:b"] {
            assert_eq!(with_stages(name, "c,d").unwrap(), "a.pt2:c,d");
        }
        let refused = with_stages("resnet50", "c").unwrap_err().to_string();
        assert_eq!(
            refused,
            "stages is c, but resnet50 is no .pt2 file: a registered model has its own stages"
        );
        let refused = open("a.pt2:b,").unwrap_err().to_string();
        assert!(refused.contains("separated by commas"), "{refused}");
    }
}
