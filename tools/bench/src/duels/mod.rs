//! Every comparison there is.

mod classification;
mod coco;
mod detection;
mod inference;
mod loading;
pub mod spark;
mod start;

use anyhow::{Result, ensure};
use engine::precision::Precision;

use crate::duel::{Comparison, Contender, Program};

/// All of them, in the order of the table.
pub fn all() -> Vec<Comparison> {
    [
        spark::duels(),
        inference::duels(),
        classification::duels(),
        detection::duels(),
        loading::duels(),
        coco::duels(),
        start::duels(),
    ]
    .concat()
}

/// Their ways of doing what `script` does: eager and compiled, for bfloat16 also under autocast.
fn ways(script: &'static str, arguments: &str, precision: Precision) -> Vec<Contender> {
    let way = |label: &'static str, more: &str| {
        Contender::new(label, Program::Script(script), &format!("{arguments} {more}"))
    };
    let mut ways = vec![way("eager, channels last", ""), way("torch.compile", "--compile")];
    if precision == Precision::Bfloat16 {
        ways.push(way("eager, autocast to bfloat16", "--autocast"));
        ways.push(way("torch.compile, autocast to bfloat16", "--autocast --compile"));
    }
    ways
}

/// Those whose name is one of `words` or contains one that is no whole name; all
/// if there are none.
///
/// # Errors
/// A word that no name contains.
pub fn chosen(words: &[String]) -> Result<Vec<Comparison>> {
    let all = all();
    let names: Vec<String> = all.iter().map(|duel| duel.name.clone()).collect();
    for word in words {
        ensure!(
            names.iter().any(|name| name.contains(word)),
            "--only {word} fits no comparison: there are {}",
            names.join(", ")
        );
    }
    let fits = |name: &str, word: &String| match names.contains(word) {
        true => name == word,
        false => name.contains(word),
    };
    let wanted =
        |duel: &Comparison| words.is_empty() || words.iter().any(|word| fits(&duel.name, word));
    Ok(all.into_iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_by_a_part() {
        let mut names: Vec<String> = all().into_iter().map(|duel| duel.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        let words = ["resnet50-float".to_owned()];
        assert_eq!(chosen(&words).unwrap()[0].name, "spark-resnet50-float32");
        assert_eq!(chosen(&["inference-resnet50-b1".to_owned()]).unwrap().len(), 1);
        assert_eq!(chosen(&["inference-resnet50-b".to_owned()]).unwrap().len(), 2);
        assert_eq!(chosen(&[]).unwrap().len(), count);
        let error = chosen(&["resnet51".to_owned()]).unwrap_err().to_string();
        assert!(
            error.starts_with("--only resnet51 fits no comparison: there are spark-"),
            "{error}"
        );
    }
}
