//! Which files of a repository are meant where none is named.

/// What a file ends in that may hold weights, for lists of what there is.
const WEIGHTS: [&str; 8] =
    [".safetensors", ".bin", ".pth", ".pt", ".pkl", ".pt2", ".tar", ".index.json"];
/// What pickled weights end in.
const PICKLED: [&str; 5] = [".bin", ".pth", ".pt", ".pkl", ".pth.tar"];
/// The names that timm, transformers and PyTorch give them, in the order of preference.
const USUAL: [&str; 4] =
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model.pth", "model.pth"];
const SAFE: &str = "model.safetensors";
const SAFE_INDEX: &str = "model.safetensors.index.json";
/// What an index's name ends in.
pub(crate) const INDEX: &str = ".index.json";
/// What describes the model in the folder it lies in.
pub(crate) const CONFIG: &str = "config.json";

/// What is looked for in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Weights: safetensors before pickled files.
    Weights,
    /// A network that torch.export has written, `.pt2`.
    Network,
}

/// What is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The file with the weights, or their index.
    pub(crate) file: String,
    /// Whether a configuration lies beside it, with which it is read as a folder.
    pub(crate) with_config: bool,
}

/// Chooses among the paths of a repository's files. Only those that lie in no folder count: which
/// of several folders is meant can't be told.
///
/// # Errors
/// None can be chosen; the end of a sentence that begins with the repository.
pub(crate) fn choose(files: &[String], want: Want) -> Result<Choice, String> {
    let top: Vec<&str> = files.iter().map(String::as_str).filter(|f| !f.contains('/')).collect();
    let has = |name: &str| top.contains(&name);
    let ending = |ends: &[&str]| -> Vec<&str> {
        top.iter().copied().filter(|file| ends.iter().any(|end| file.ends_with(end))).collect()
    };
    let choice = |file: &str| {
        // A folder is read by these names, the first before the second.
        let by_name = file == SAFE || (USUAL.contains(&file) && !has(SAFE_INDEX));
        let alone = file == SAFE_INDEX && !USUAL.iter().any(|name| has(name));
        Choice { file: file.to_owned(), with_config: has(CONFIG) && (by_name || alone) }
    };
    if want == Want::Network {
        return match ending(&[".pt2"])[..] {
            [only] => Ok(Choice { file: only.into(), with_config: false }),
            [] => Err(format!(
                "it has no .pt2 file of a network. The weights of a model that has a name are \
                 given where weights are taken. {}",
                listed(files)
            )),
            _ => Err(format!("it has several .pt2 files: name one. {}", listed(files))),
        };
    }
    if let Some(name) = [SAFE, SAFE_INDEX].into_iter().find(|name| has(name)) {
        return Ok(choice(name));
    }
    let usual = || USUAL.into_iter().find(|name| has(name)).map(choice);
    for (kind, ends) in
        [("safetensors", &[".safetensors"][..]), ("pickled", &PICKLED), (".pt2", &[".pt2"])]
    {
        let found = ending(ends);
        match found[..] {
            [only] => return Ok(choice(only)),
            [] => {}
            _ => {
                let rule = format!("it has several {kind} files: name one. {}", listed(files));
                return usual().filter(|_| kind == "pickled").ok_or(rule);
            }
        }
    }
    Err(format!("it has no weight file that is read here without its name. {}", listed(files)))
}

/// The weight files among a repository's, in a sentence.
pub(crate) fn listed(files: &[String]) -> String {
    const SHOWN: usize = 12;
    let is_weights = |file: &&String| WEIGHTS.iter().any(|end| file.ends_with(end));
    let found: Vec<&str> = files.iter().filter(is_weights).map(String::as_str).collect();
    let more = match found.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match found.is_empty() {
        true => "There are no weight files in it".into(),
        false => {
            format!("Its weight files are {}{more}", found[..found.len().min(SHOWN)].join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[&str], want: Want) -> Result<Choice, String> {
        choose(&files.iter().map(|&file| file.to_owned()).collect::<Vec<_>>(), want)
    }

    #[test]
    fn safe_files_come_before_pickled_ones() {
        let cases: [(&[&str], &str, bool); 9] = [
            (&["pytorch_model.bin", "model.safetensors", "config.json"], "model.safetensors", true),
            (&["model.safetensors", "x.safetensors"], "model.safetensors", false),
            (
                &["model.safetensors.index.json", "config.json"],
                "model.safetensors.index.json",
                true,
            ),
            // A folder with both would be read by the pickled one.
            (
                &["model.safetensors.index.json", "pytorch_model.bin", "config.json"],
                "model.safetensors.index.json",
                false,
            ),
            (&["a.safetensors", "pytorch_model.bin", "config.json"], "a.safetensors", false),
            (&["pytorch_model.bin", "other.bin", "config.json"], "pytorch_model.bin", true),
            (&["config.json", "r50.pth"], "r50.pth", false),
            (&["README.md", "net.pt2", "x/model.safetensors"], "net.pt2", false),
            (&["run.pth.tar"], "run.pth.tar", false),
        ];
        for (files, file, with_config) in cases {
            let chosen = of(files, Want::Weights).unwrap();
            assert_eq!(chosen, Choice { file: file.into(), with_config }, "{files:?}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_listed() {
        let refused = of(&["a.safetensors", "b.safetensors", "c.pth"], Want::Weights).unwrap_err();
        assert_eq!(
            refused,
            "it has several safetensors files: name one. Its weight files are a.safetensors, \
             b.safetensors, c.pth"
        );
        let refused = of(&["README.md", "x/a.pth"], Want::Weights).unwrap_err();
        assert!(refused.ends_with("Its weight files are x/a.pth"), "{refused}");
        let refused = of(&["README.md"], Want::Weights).unwrap_err();
        assert!(refused.ends_with("There are no weight files in it"), "{refused}");
    }

    #[test]
    fn a_network_is_the_only_pt2_file() {
        let chosen = of(&["model.safetensors", "net.pt2", "config.json"], Want::Network).unwrap();
        assert_eq!(chosen, Choice { file: "net.pt2".into(), with_config: false });
        assert!(of(&["a.pt2", "b.pt2"], Want::Network).unwrap_err().contains("several"));
        assert!(of(&["a.pth"], Want::Network).unwrap_err().contains("no .pt2"));
    }
}
