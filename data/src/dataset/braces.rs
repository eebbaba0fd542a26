//! Brace patterns of shard names, as shells and WebDataset write them.

use std::path::PathBuf;

use crate::{Error, Result};

/// More than any data set has shards.
const MOST: usize = 1_000_000;

/// `a-{000..002}{x,y}` to `a-000x`, `a-000y`, `a-001x`, …
pub(super) fn expand(pattern: &str) -> Result<Vec<PathBuf>> {
    let refused = |rule: &str| Error::invalid("shard pattern", format!("{pattern:?}"), rule);
    let mut expanded = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) =
            after.split_once('}').ok_or_else(|| refused("every { needs its }"))?;
        let choices = choices(inside).ok_or_else(|| {
            refused("braces hold FIRST..LAST in order or A,B,…, at most a million")
        })?;
        if expanded.len().saturating_mul(choices.len()) > MOST {
            return Err(refused("it may name at most a million files"));
        }
        expanded = expanded
            .iter()
            .flat_map(|start| choices.iter().map(move |choice| format!("{start}{before}{choice}")))
            .collect();
        rest = after;
    }
    Ok(expanded.into_iter().map(|start| PathBuf::from(start + rest)).collect())
}

fn choices(inside: &str) -> Option<Vec<String>> {
    if let Some((first, last)) = inside.split_once("..") {
        let width = first.len();
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let (first, last): (usize, usize) = match digits(first) && digits(last) {
            true => (first.parse().ok()?, last.parse().ok()?),
            false => return None,
        };
        let count = last.checked_sub(first)?;
        return (count < MOST).then(|| (first..=last).map(|n| format!("{n:0width$}")).collect());
    }
    let choices: Vec<String> = inside.split(',').map(str::to_owned).collect();
    (choices.len() > 1).then_some(choices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str) -> Vec<String> {
        expand(pattern).unwrap().iter().map(|p| p.display().to_string()).collect()
    }

    #[test]
    fn expands_ranges_and_lists() {
        assert_eq!(names("s-{008..010}.tar"), ["s-008.tar", "s-009.tar", "s-010.tar"]);
        assert_eq!(names("{a,b}/{0..1}.tar"), ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]);
        assert_eq!(names("{9..11}"), ["9", "10", "11"]);
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for pattern in ["a{1..", "a{x}.tar", "a{3..1}", "a{..4}", "a{-1..4}", "{0..999999999999}"] {
            let message = expand(pattern).unwrap_err().to_string();
            assert!(message.contains(&format!("{pattern:?}")), "{message}");
        }
        assert!(expand("{0..9999}{0..9999}").unwrap_err().to_string().contains("million"));
    }
}
