//! What a program answers.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Picture;

/// What a page asks its program.
#[derive(Debug)]
pub struct Question {
    /// What is asked for.
    pub name: String,
    /// How, as the page's script sends it.
    pub body: Value,
    /// The picture that it is about, if it names one.
    pub picture: Option<Arc<Picture>>,
}

/// A program behind a page.
pub trait App {
    /// What the page is told when it opens.
    fn about(&self) -> Value;

    /// The answer to one question of the page.
    ///
    /// # Errors
    /// A sentence that the page shows.
    fn answer(&mut self, question: &Question) -> Result<Value>;
}

impl Question {
    /// Field `name` of what was sent.
    ///
    /// # Errors
    /// There is none, or it is of another type.
    pub fn field<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.body.get(name).cloned().unwrap_or(Value::Null);
        let told = value.to_string();
        serde_json::from_value(value)
            .with_context(|| format!("{name} of the question {:?} is {told}", self.name))
    }

    /// The picture.
    ///
    /// # Errors
    /// The question names none.
    pub fn picture(&self) -> Result<&Picture> {
        self.picture.as_deref().with_context(|| format!("{:?} names no picture", self.name))
    }
}

/// Yes or no for every place of a grid, row by row, as the letters 1 and 0: how pages and programs
/// send masks to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bits(pub Vec<bool>);

impl Bits {
    /// Out of its letters.
    ///
    /// # Errors
    /// Other letters, or not `count` of them.
    pub fn parse(letters: &str, count: usize) -> Result<Self> {
        let found = letters.chars().count();
        ensure!(found == count, "the mask has {found} places, but the grid has {count}");
        let bit = |letter| match letter {
            '0' => Ok(false),
            '1' => Ok(true),
            other => anyhow::bail!("the mask holds {other:?}, but only 0 and 1 are masks"),
        };
        letters.chars().map(bit).collect::<Result<_>>().map(Self)
    }

    /// Its letters.
    pub fn letters(&self) -> String {
        self.0.iter().map(|&bit| if bit { '1' } else { '0' }).collect()
    }
}
