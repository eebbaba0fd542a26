//! The pinned Python packages: `requirements.txt`, read.

use std::fmt;

use anyhow::{Context, Result, bail};
use spark_build::version;

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
    /// Executes notebooks, or needed by what does.
    Notebook,
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
    /// The series of torch that it goes with; any, if none.
    pub torch: Option<String>,
}

impl fmt::Display for Pin {
    /// As pip takes it: `name==version`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=={}", self.name, self.version)
    }
}

/// Every pinned package.
pub fn all() -> Result<Vec<Pin>> {
    parse(REQUIREMENTS).context("xtask/requirements.txt")
}

/// The pinned packages needed for one of `uses` beside torch `release`, which may be another patch
/// than the pinned one.
pub fn needed_for(uses: &[Use], release: &str) -> Result<Vec<Pin>> {
    let series = version::series(release);
    let fits = |pin: &Pin| pin.torch.as_deref().is_none_or(|torch| torch == series);
    let mut pins = all()?;
    pins.retain(|pin| uses.contains(&pin.needed_for) && fits(pin));
    for pin in pins.iter_mut().filter(|pin| pin.needed_for == Use::Libtorch) {
        pin.version = release.to_owned();
    }
    Ok(pins)
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
        .context("no `# libtorch|demo|test|bench|wheel|nccl|frameworks|notebook` at its end")?;
    let (name, version) = requirement.trim().split_once("==").context("not `name==version`")?;
    if name.is_empty() || version.is_empty() {
        bail!("not `name==version`");
    }
    let mut words = word.split_whitespace();
    let needed_for = match words.next().unwrap_or_default() {
        "libtorch" => Use::Libtorch,
        "demo" => Use::Demo,
        "test" => Use::Test,
        "bench" => Use::Bench,
        "wheel" => Use::Wheel,
        "nccl" => Use::Nccl,
        "frameworks" => Use::Frameworks,
        "notebook" => Use::Notebook,
        other => bail!(
            "{other:?} is none of libtorch, demo, test, bench, wheel, nccl, frameworks, notebook"
        ),
    };
    let torch = match (needed_for, words.next()) {
        (Use::Libtorch, _) => Some(version::series(version).to_owned()),
        (_, torch) => torch.map(str::to_owned),
    };
    Ok(Pin { name: name.to_owned(), version: version.to_owned(), needed_for, torch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_versions_uses_and_the_torch_that_a_package_goes_with() {
        let text = "# a comment\n\ntorch==2.13.0   # libtorch\ntimm==1.0.31 # test\n\
            torchvision==0.23.0 # test 2.8\n";
        let pins = parse(text).unwrap();
        let pin = |name: &str, version: &str, needed_for, torch: Option<&str>| Pin {
            name: name.to_owned(),
            version: version.to_owned(),
            needed_for,
            torch: torch.map(str::to_owned),
        };
        let expected = [
            pin("torch", "2.13.0", Use::Libtorch, Some("2.13")),
            pin("timm", "1.0.31", Use::Test, None),
            pin("torchvision", "0.23.0", Use::Test, Some("2.8")),
        ];
        assert_eq!(pins, expected);
        assert_eq!(pins[1].to_string(), "timm==1.0.31");
    }

    #[test]
    fn another_form_is_refused_with_its_line() {
        for (line, reason) in [
            ("torch>=2.13 # libtorch", "not `name==version`"),
            ("==2.13 # libtorch", "not `name==version`"),
            ("torch==2.13.0", "no `# libtorch|demo|test|bench|wheel|nccl|frameworks|notebook`"),
            ("torch==2.13.0 # fun", "\"fun\" is none of"),
        ] {
            let error = format!("{:#}", parse(&format!("# head\n{line}\n")).unwrap_err());
            assert!(error.contains("line 2") && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn each_release_has_its_torch_and_torchvision_once() {
        let torches: Vec<String> = all()
            .unwrap()
            .into_iter()
            .filter(|pin| pin.needed_for == Use::Libtorch)
            .map(|pin| pin.version)
            .collect();
        assert_eq!(torches, version::RELEASES);
        for release in version::RELEASES.into_iter().chain(["2.9.0"]) {
            let pins = needed_for(&[Use::Libtorch, Use::Test], release).unwrap();
            let named = |name: &str| -> Vec<&str> {
                let pins = pins.iter().filter(|pin| pin.name == name);
                pins.map(|pin| pin.version.as_str()).collect()
            };
            assert_eq!(named("torch"), [release]);
            assert_eq!((named("torchvision").len(), named("timm").len()), (1, 1), "{release}");
        }
    }
}
