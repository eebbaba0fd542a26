//! Indexes beside tar shards: where members lie, so that a shard needs not be read to know.
//!
//! The form is that of NVIDIA DALI's `wds2idx`, version 1.2: text, of which the first line is
//! `v1.2` and the number of samples, and every further line one sample, with four words for each
//! of its members: extension, first byte of its content, size, and name. A sample's members have
//! the same name up to the first dot after the last slash.

use std::fmt::Write;

use crate::{Error, Location, Result};

/// A file in a tar shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedMember {
    /// Its path in the shard.
    pub name: String,
    /// The first byte of its content in the shard.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
}

/// Where the members of a tar shard lie.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShardIndex {
    /// In the order of the shard.
    pub members: Vec<IndexedMember>,
}

/// How the first line begins.
const VERSION: &str = "v1.2";
/// Bytes of a block of a tar archive.
const BLOCK: u64 = 512;

impl ShardIndex {
    /// What the index of the shard called `shard` is called: `a.tar` has `a.idx`.
    pub fn name_for(shard: &str) -> String {
        let start = shard.rfind('/').map_or(0, |slash| slash + 1);
        let dot = shard[start..].find('.').map_or(shard.len(), |dot| start + dot);
        format!("{}.idx", &shard[..dot])
    }

    /// The index as text.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that the form can't hold: one with white space, or without
    /// anything before its first dot.
    pub fn write(&self) -> Result<String> {
        let (mut lines, mut samples, mut last) = (String::new(), 0, None);
        for member in &self.members {
            let IndexedMember { name, offset, size } = member;
            let (sample, extension) = split(name);
            if name.contains(char::is_whitespace)
                || sample.is_empty()
                || sample.ends_with('/')
                || extension.is_empty()
            {
                let rule = "an index holds names like sample.jpg, without white space";
                return Err(Error::invalid("name of a member", format!("{name:?}"), rule));
            }
            let between = if last == Some(sample) {
                " "
            } else {
                samples += 1;
                if last.is_some() { "\n" } else { "" }
            };
            last = Some(sample);
            // Writing to a string cannot fail.
            let _ = write!(lines, "{between}{extension} {offset} {size} {name}");
        }
        Ok(format!("{VERSION} {samples}\n{lines}\n"))
    }

    /// Reads the index at `at` of a shard of `shard_size` bytes.
    ///
    /// # Errors
    /// [`Error::Refused`] for another form, and for members that overlap or don't lie in the
    /// shard: the index is another shard's.
    pub fn parse(at: &Location, text: &str, shard_size: u64) -> Result<Self> {
        let refused = |problem: String| Error::Refused {
            at: at.clone(),
            problem: format!("the index can't be used: {problem}"),
        };
        let mut lines = text.lines();
        let head = lines.next().unwrap_or_default();
        let samples = head.strip_prefix(VERSION).and_then(|rest| rest.trim().parse::<usize>().ok());
        let Some(samples) = samples else {
            let head: String = head.chars().take(40).collect();
            return Err(refused(format!(
                "it begins {head:?}, where \"{VERSION}\" and the number of samples should be (as \
                 wds2idx writes it)"
            )));
        };
        let (mut members, mut found, mut end) = (Vec::new(), 0, 0);
        for (number, line) in (2..).zip(lines).filter(|(_, line)| !line.is_empty()) {
            found += 1;
            let words: Vec<&str> = line.split(' ').collect();
            for words in words.chunks(4) {
                let member = match words {
                    [_, offset, size, name] => {
                        offset.parse().ok().zip(size.parse().ok()).map(|(offset, size)| {
                            IndexedMember { name: (*name).to_owned(), offset, size }
                        })
                    }
                    _ => None,
                };
                let member = member.ok_or_else(|| {
                    refused(format!(
                        "line {number} is not made of extension, offset, size and name, four words \
                         for each member"
                    ))
                })?;
                let stop = member.offset.checked_add(member.size);
                let header = member.offset.checked_sub(BLOCK);
                let fits = stop.is_some_and(|stop| stop <= shard_size)
                    && header.is_some_and(|header| header >= end)
                    && member.offset % BLOCK == 0;
                if !fits {
                    return Err(refused(format!(
                        "its member {} of {} bytes at {} does not lie in a shard of {shard_size} \
                         bytes; the index is another shard's: make it again",
                        member.name, member.size, member.offset,
                    )));
                }
                end = stop.unwrap_or(u64::MAX);
                members.push(member);
            }
        }
        if found != samples {
            return Err(refused(format!("it says {samples} samples and has {found}")));
        }
        Ok(ShardIndex { members })
    }
}

/// A member's sample and extension.
fn split(name: &str) -> (&str, &str) {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[start..].find('.') {
        Some(dot) => (&name[..start + dot], &name[start + dot + 1..]),
        None => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, offset: u64, size: u64) -> IndexedMember {
        IndexedMember { name: name.into(), offset, size }
    }

    fn at() -> Location {
        Location::parse("s3://b/a.idx").unwrap()
    }

    #[test]
    fn is_written_as_dali_writes_it_and_read_back() {
        let members = vec![
            member("train/a.jpg", 512, 700),
            member("train/a.cls", 2048, 1),
            member("b.seg.png", 3072, 0),
        ];
        let index = ShardIndex { members };
        let text = index.write().unwrap();
        // What `wds2idx` gives for the same shard.
        assert_eq!(
            text,
            "v1.2 2\njpg 512 700 train/a.jpg cls 2048 1 train/a.cls\nseg.png 3072 0 b.seg.png\n"
        );
        assert_eq!(ShardIndex::parse(&at(), &text, 10240).unwrap(), index);
        assert_eq!(ShardIndex::name_for("set.d/a-000.tar"), "set.d/a-000.idx");
    }

    #[test]
    fn what_does_not_fit_the_shard_is_refused() {
        for (text, said) in [
            ("v1.1 1\njpg 512 1\n", "it begins \"v1.1 1\""),
            ("v1.2 1\njpg 512 1\n", "line 2 is not made of"),
            ("v1.2 2\njpg 512 1 a.jpg\n", "says 2 samples and has 1"),
            ("v1.2 1\njpg 512 9000 a.jpg\n", "does not lie in a shard of 4096 bytes"),
            ("v1.2 1\njpg 512 18446744073709551615 a.jpg\n", "does not lie"),
            ("v1.2 1\njpg 0 1 a.jpg\n", "does not lie"),
            ("v1.2 1\njpg 512 600 a.jpg cls 1024 1 a.cls\n", "does not lie"),
            ("", "it begins \"\""),
        ] {
            let message = ShardIndex::parse(&at(), text, 4096).unwrap_err().to_string();
            assert!(message.contains(said) && message.starts_with("s3://b/a.idx: "), "{message}");
        }
        let index = ShardIndex { members: vec![member("a b.jpg", 512, 1)] };
        assert!(index.write().unwrap_err().to_string().contains("without white space"));
    }
}
