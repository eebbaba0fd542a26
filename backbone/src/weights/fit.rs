//! Which tensors of a file belong to which tensors of a model: the prefix and
//! the naming under which most of them do are found by trying all.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Naming;
use super::naming::begins_with_wrapper;
use super::report::Mismatch;
use crate::models::Family;

/// Shapes by name.
pub(crate) type Shapes<'a> = BTreeMap<&'a str, Vec<i64>>;

/// How a file fits a model.
#[derive(Debug)]
pub(crate) struct Fit {
    pub(crate) naming: Naming,
    /// What stands before each name in the file.
    pub(crate) prefix: String,
    /// Canonical name to the file's whole name; shapes hold the same numbers.
    pub(crate) matched: BTreeMap<String, String>,
    /// Canonical names that the file lacks.
    pub(crate) missing: Vec<String>,
    /// Those whose shape is another.
    pub(crate) mismatched: Vec<Mismatch>,
    /// Canonical name to the file's whole name, of those.
    pub(crate) of_another_shape: BTreeMap<String, String>,
    /// The file's names that nothing took.
    pub(crate) unused: Vec<String>,
    /// Whether the model has convolutions of several groups.
    pub(crate) grouped: bool,
    /// Tensors under the prefix that are of the family but not of this model.
    pub(crate) surplus: usize,
    /// Other prefixes with as many matches.
    pub(crate) alternatives: Vec<String>,
}

/// How a prefix and naming did: tensors that can be loaded, then names alone.
type Score = (usize, usize);

/// The best fit of `file` to `model`, or `None` if no name matches. `naming`
/// and `prefix` narrow the search.
pub(crate) fn best_fit(
    family: Family,
    model: &Shapes,
    file: &Shapes,
    naming: Option<Naming>,
    prefix: Option<&str>,
) -> Option<Fit> {
    let scores = scores(family, model, file, naming, prefix);
    let (&(best, naming), &score) =
        scores.iter().max_by_key(|&(&(prefix, naming), &score)| rank(prefix, naming, score))?;
    let alternatives: BTreeSet<String> = scores
        .iter()
        .filter(|&(&(other, _), &its)| other != best && its == score)
        .map(|(&(other, _), _)| other.to_owned())
        .collect();
    let mut fit = compare(family, model, file, naming, best);
    fit.alternatives = alternatives.into_iter().collect();
    Some(fit)
}

/// Counts, for every place where a name may begin and every naming, what the
/// model has under the rest of the name.
fn scores<'a>(
    family: Family,
    model: &Shapes,
    file: &Shapes<'a>,
    naming: Option<Naming>,
    prefix: Option<&str>,
) -> HashMap<(&'a str, Naming), Score> {
    let namings = candidates(family, naming);
    let mut scores: HashMap<(&str, Naming), Score> = HashMap::new();
    for (&key, shape) in file {
        let starts = std::iter::once(0).chain(key.match_indices('.').map(|(at, _)| at + 1));
        for start in starts {
            let (before, rest) = key.split_at(start);
            let wrapped = family != Family::Custom && begins_with_wrapper(rest);
            if wrapped || prefix.is_some_and(|wanted| wanted != before) {
                continue;
            }
            for &naming in &namings {
                let canonical = naming.from(family, rest);
                if let Some(expected) = canonical.and_then(|name| model.get(name.as_str())) {
                    let score = scores.entry((before, naming)).or_default();
                    score.0 += usize::from(same_numbers(expected, shape));
                    score.1 += 1;
                }
            }
        }
    }
    scores
}

/// A custom network is called the same in all namings: one will do.
fn candidates(family: Family, naming: Option<Naming>) -> Vec<Naming> {
    match naming {
        Some(naming) => vec![naming],
        None if family == Family::Custom => vec![Naming::Official],
        None => Naming::ALL.to_vec(),
    }
}

/// What decides between two fits, in this order: the score; weights rather
/// than their running average; the shorter prefix; the naming's place in
/// [`Naming::ALL`].
type Rank<'a> = (Score, bool, Reverse<(usize, &'a str, Naming)>);

fn rank<'a>(prefix: &'a str, naming: Naming, score: Score) -> Rank<'a> {
    (score, !is_average(prefix), Reverse((prefix.len(), prefix, naming)))
}

/// Whether the prefix is that of a copy which follows the trained weights.
fn is_average(prefix: &str) -> bool {
    prefix.split(['.', '_']).any(|word| {
        const AVERAGES: [&str; 10] = [
            "ema", "momentum", "teacher", "target", "k", "averaged", "average", "avg", "shadow",
            "swa",
        ];
        AVERAGES.contains(&word)
    })
}

fn compare(family: Family, model: &Shapes, file: &Shapes, naming: Naming, prefix: &str) -> Fit {
    let mut found: BTreeMap<String, &str> = BTreeMap::new();
    for &key in file.keys().filter(|key| key.starts_with(prefix)) {
        let rest = &key[prefix.len()..];
        if let Some(canonical) = naming.from(family, rest) {
            // Of two spellings the naming's own one wins.
            let own = naming.to(family, &canonical).as_deref() == Some(rest);
            if own || !found.contains_key(&canonical) {
                found.insert(canonical, key);
            }
        }
    }
    let mut fit = Fit {
        naming,
        prefix: prefix.to_owned(),
        matched: BTreeMap::new(),
        missing: Vec::new(),
        mismatched: Vec::new(),
        of_another_shape: BTreeMap::new(),
        unused: Vec::new(),
        grouped: model.get("layer1.0.conv2.weight").is_some_and(|shape| shape[0] != shape[1]),
        surplus: 0,
        alternatives: Vec::new(),
    };
    for (&name, expected) in model {
        match found.get(name).map(|&key| (key, &file[key])) {
            None => fit.missing.push(name.to_owned()),
            Some((key, shape)) if same_numbers(expected, shape) => {
                fit.matched.insert(name.to_owned(), key.to_owned());
            }
            Some((key, shape)) => {
                let (expected, found) = (expected.clone(), shape.clone());
                fit.mismatched.push(Mismatch { name: name.to_owned(), expected, found });
                fit.of_another_shape.insert(name.to_owned(), key.to_owned());
            }
        }
    }
    fit.surplus = found
        .keys()
        .filter(|name| !model.contains_key(name.as_str()) && !super::default_optional(name))
        .count();
    let taken: BTreeSet<&str> = fit.matched.values().map(String::as_str).collect();
    fit.unused =
        file.keys().filter(|key| !taken.contains(*key)).map(|key| (*key).to_owned()).collect();
    fit
}

/// Whether the shapes are equal up to sides of 1 at their end: `[C]` and
/// `[C, 1, 1]`, or a linear layer `[O, I]` and a 1×1 convolution `[O, I, 1, 1]`.
/// The numbers are then the same in the same order.
pub(crate) fn same_numbers(a: &[i64], b: &[i64]) -> bool {
    fn trimmed(mut shape: &[i64]) -> &[i64] {
        while let [rest @ .., 1] = shape {
            shape = rest;
        }
        shape
    }
    trimmed(a) == trimmed(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes<'a>(names: &[&'a str]) -> Shapes<'a> {
        names.iter().map(|&name| (name, vec![2])).collect()
    }

    fn fit(model: &[&str], file: &[&str]) -> Option<Fit> {
        best_fit(Family::ResNet, &shapes(model), &shapes(file), None, None)
    }

    #[test]
    fn prefixes_of_any_depth() {
        for prefix in
            ["", "module.", "model.backbone.", "backbone.bottom_up.", "a.b.c.d.", "_orig_mod."]
        {
            let names = ["conv1.weight", "layer1.0.bn1.bias"].map(|name| format!("{prefix}{name}"));
            let file = names.each_ref().map(String::as_str);
            let fit = fit(&["conv1.weight", "layer1.0.bn1.bias"], &file).unwrap();
            assert_eq!((fit.prefix.as_str(), fit.matched.len()), (prefix, 2));
            assert!(fit.missing.is_empty() && fit.unused.is_empty() && fit.alternatives.is_empty());
        }
    }

    #[test]
    fn detectron2_is_recognised_within_a_detector() {
        let file = [
            "backbone.bottom_up.stem.conv1.weight",
            "backbone.bottom_up.res2.0.conv1.norm.bias",
            "roi_heads.box_head.fc1.weight",
        ];
        let fit = fit(&["conv1.weight", "layer1.0.bn1.bias"], &file).unwrap();
        assert_eq!(fit.naming, Naming::Detectron2);
        assert_eq!(fit.prefix, "backbone.bottom_up.");
        assert_eq!(fit.unused, ["roi_heads.box_head.fc1.weight"]);
    }

    #[test]
    fn weights_come_before_their_average_and_both_are_told() {
        let file = ["ema.conv1.weight", "model.conv1.weight", "encoder_k.conv1.weight"];
        let fit = fit(&["conv1.weight"], &file).unwrap();
        assert_eq!(fit.prefix, "model.");
        assert_eq!(fit.alternatives, ["ema.", "encoder_k."]);
    }

    #[test]
    fn the_prefix_that_fits_beats_the_one_that_is_called_alike() {
        let model = shapes(&["conv1.weight", "bn1.bias"]);
        let mut file = shapes(&["a.conv1.weight", "a.bn1.bias", "bb.conv1.weight", "bb.bn1.bias"]);
        file.insert("a.bn1.bias", vec![7]);
        let fit = best_fit(Family::ResNet, &model, &file, None, None).unwrap();
        assert_eq!(fit.prefix, "bb.");
    }

    #[test]
    fn nothing_in_common_is_no_fit() {
        assert!(fit(&["conv1.weight"], &["conv2.weight", "embeddings.weight"]).is_none());
    }

    #[test]
    fn only_sides_of_one_at_the_end_are_ignored() {
        assert!(same_numbers(&[8], &[8, 1, 1]));
        assert!(same_numbers(&[8, 4, 1, 1], &[8, 4]));
        assert!(same_numbers(&[], &[1]));
        assert!(!same_numbers(&[8, 4], &[4, 8]));
        assert!(!same_numbers(&[1, 8], &[8]));
        assert!(!same_numbers(&[2, 4], &[8]));
    }
}
