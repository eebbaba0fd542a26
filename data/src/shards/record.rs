//! What is written down of shards: settings, what is done, and the summary.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::require;
use crate::{ByteSize, Result};

/// How shards are made. Two sets of the same images and settings are equal byte for byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShardSettings {
    /// Most bytes of a shard; one image that is larger has a shard of its own.
    pub size: ByteSize,
    /// Longest side of a picture in pixels: larger ones are made smaller and become JPEG.
    pub max_side: Option<u32>,
    /// Quality of these, 1 to 100.
    pub quality: u8,
    /// The order of the images is drawn from it; none: they stay in the order of their names.
    pub seed: Option<u64>,
    /// Whether images have their class beside them.
    pub labels: bool,
    /// Channels of the images: which files are images depends on it.
    pub channels: usize,
    /// What the shards' names begin with.
    pub prefix: String,
}

impl Default for ShardSettings {
    /// 256 MB, pictures as they are, in an order drawn from 0.
    fn default() -> Self {
        ShardSettings {
            size: ByteSize(256_000_000),
            max_side: None,
            quality: 90,
            seed: Some(0),
            labels: false,
            channels: 3,
            prefix: "shard".to_owned(),
        }
    }
}

/// A shard for fewer bytes has more overhead than content.
const LEAST_SIZE: ByteSize = ByteSize(100_000);

impl ShardSettings {
    /// That the settings are such that shards can be made.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid).
    pub fn check(&self) -> Result<()> {
        require(
            self.size >= LEAST_SIZE,
            "size",
            self.size,
            &format!("at least {LEAST_SIZE} are needed"),
        )?;
        let quality = "it goes from 1 to 100";
        require((1..=100).contains(&self.quality), "quality", self.quality, quality)?;
        if let Some(side) = self.max_side {
            require(side >= 16, "max-side", side, "at least 16 pixels are needed")?;
            let rule = format!(
                "JPEG, which smaller pictures become, has 1 or 3 channels and not {}",
                self.channels
            );
            require(matches!(self.channels, 1 | 3), "max-side", side, &rule)?;
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let prefix = format!("{:?}", self.prefix);
        let rule = "it is made of letters, digits, - and _";
        require(
            !self.prefix.is_empty() && self.prefix.chars().all(is_plain),
            "prefix",
            prefix,
            rule,
        )
    }

    /// Where `other` differs, as `size: 256MB and 1GB`.
    pub(super) fn differences(&self, other: &ShardSettings) -> Vec<String> {
        let [ours, others] = [self, other].map(|settings| {
            let value = serde_json::to_value(settings).unwrap_or_default();
            serde_json::from_value::<BTreeMap<String, serde_json::Value>>(value).unwrap_or_default()
        });
        let differing = ours.iter().filter(|(name, value)| others.get(*name) != Some(value));
        let other = |name| others.get(name).cloned().unwrap_or_default();
        differing
            .map(|(name, value)| format!("{name} ({} there, {value} here)", other(name)))
            .collect()
    }
}

/// The images that shards are made of, as far as that says whether they are the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Listed {
    pub images: usize,
    /// Of names and classes, in their order.
    pub sha256: String,
}

/// What is begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub settings: ShardSettings,
    pub listed: Listed,
}

/// A finished shard, as the summary has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// Its file.
    pub name: String,
    /// Images in it.
    pub images: usize,
    /// Its bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A finished shard, as long as the set is not finished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub entry: ShardEntry,
    /// Pictures in it that were made smaller.
    pub resized: usize,
    /// How many images of the order are done with it.
    pub next: usize,
    /// Files before that which were left out since the last shard: number, name and reason.
    pub unreadable: Vec<(usize, String, String)>,
}

/// What a set of shards is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Images of all shards.
    pub images: usize,
    /// Bytes of all shards.
    pub bytes: u64,
    /// Pictures that were made smaller.
    pub resized: usize,
    /// Files that were left out: see `unreadable.txt`.
    pub unreadable: usize,
    /// Classes, named in `classes.txt`; 0 without labels.
    pub classes: usize,
    /// How they were made.
    pub settings: ShardSettings,
    pub(super) listed: Listed,
    /// The shards in their order.
    pub shards: Vec<ShardEntry>,
}

impl Summary {
    /// Of a set whose shards are `records`.
    pub(super) fn of(begun: Begun, classes: usize, unreadable: usize, records: &[Record]) -> Self {
        let shards: Vec<ShardEntry> = records.iter().map(|record| record.entry.clone()).collect();
        Summary {
            images: shards.iter().map(|shard| shard.images).sum(),
            bytes: shards.iter().map(|shard| shard.bytes).sum(),
            resized: records.iter().map(|record| record.resized).sum(),
            unreadable,
            classes,
            settings: begun.settings,
            listed: begun.listed,
            shards,
        }
    }
}
