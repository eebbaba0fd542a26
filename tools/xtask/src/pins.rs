//! The pinned Python packages: `requirements.txt`, read.

use std::fmt;

use anyhow::{Context, Result, bail};

/// The list, as pip could read it too.
const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// What a package is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Carries the C++ library everything links to.
    Libtorch,
    /// Carries photographs the demo trains on.
    Demo,
    /// Tests compare with it.
    Test,
    /// Measurements compare with it.
    Bench,
    /// Packs the wheel.
    Wheel,
    /// Carries headers that compiling against NCCL needs.
    Nccl,
    /// A detection framework that backbones are tried in, or needed by one.
    Frameworks,
}

/// One package at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The distribution's name, as pip spells it.
    pub name: String,
    /// The exact release.
    pub version: String,
    /// What it is needed for.
    pub needed_for: Use,
}

impl fmt::Display for Pin {
    /// As pip takes it: `name==version`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=={}", self.name, self.version)
    }
}

/// Every pinned package.
///
/// # Errors
/// When `requirements.txt` has a line of another form.
pub fn all() -> Result<Vec<Pin>> {
    parse(REQUIREMENTS).context("xtask/requirements.txt")
}

/// The pinned packages needed for one of `uses`.
///
/// # Errors
/// As [`all`].
pub fn needed_for(uses: &[Use]) -> Result<Vec<Pin>> {
    Ok(all()?.into_iter().filter(|pin| uses.contains(&pin.needed_for)).collect())
}

fn parse(text: &str) -> Result<Vec<Pin>> {
    let mut pins = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if !line.trim().is_empty() && !line.starts_with('#') {
            pins.push(parse_line(line).with_context(|| format!("line {}: {line:?}", index + 1))?);
        }
    }
    Ok(pins)
}

fn parse_line(line: &str) -> Result<Pin> {
    let (requirement, word) = line
        .split_once('#')
        .context("no `# libtorch|demo|test|bench|wheel|nccl|frameworks` at its end")?;
    let (name, version) = requirement.trim().split_once("==").context("not `name==version`")?;
    if name.is_empty() || version.is_empty() {
        bail!("not `name==version`");
    }
    let needed_for = match word.trim() {
        "libtorch" => Use::Libtorch,
        "demo" => Use::Demo,
        "test" => Use::Test,
        "bench" => Use::Bench,
        "wheel" => Use::Wheel,
        "nccl" => Use::Nccl,
        "frameworks" => Use::Frameworks,
        other => bail!("{other:?} is none of libtorch, demo, test, bench, wheel, nccl, frameworks"),
    };
    Ok(Pin { name: name.to_owned(), version: version.to_owned(), needed_for })
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_build::version;

    #[test]
    fn reads_names_versions_and_uses() {
        let pins =
            parse("# a comment\n\ntorch==2.13.0   # libtorch\ntimm==1.0.31 # test\n").unwrap();
        let pin = |name: &str, version: &str, needed_for| Pin {
            name: name.to_owned(),
            version: version.to_owned(),
            needed_for,
        };
        assert_eq!(pins, [pin("torch", "2.13.0", Use::Libtorch), pin("timm", "1.0.31", Use::Test)]);
        assert_eq!(pins[1].to_string(), "timm==1.0.31");
    }

    #[test]
    fn another_form_is_refused_with_its_line() {
        for (line, reason) in [
            ("torch>=2.13 # libtorch", "not `name==version`"),
            ("==2.13 # libtorch", "not `name==version`"),
            ("torch==2.13.0", "no `# libtorch|demo|test|bench|wheel|nccl|frameworks`"),
            ("torch==2.13.0 # fun", "\"fun\" is none of"),
        ] {
            let error = format!("{:#}", parse(&format!("# head\n{line}\n")).unwrap_err());
            assert!(error.contains("line 2") && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn the_pinned_torch_is_the_release_the_build_needs() {
        let torch = needed_for(&[Use::Libtorch]).unwrap();
        assert_eq!(torch.len(), 1);
        assert_eq!((torch[0].name.as_str(), torch[0].version.as_str()), ("torch", version::NEEDED));
    }
}
