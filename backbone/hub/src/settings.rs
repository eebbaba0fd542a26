//! Where the hub is and where its files are kept: the variables that Python's
//! huggingface_hub takes. Reference: huggingface_hub `constants.py`.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Result};

const ENDPOINT: &str = "https://huggingface.co";

/// How a hub is asked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The hub's address, without a slash at its end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// What proves who is asking (`HF_TOKEN`, else the file that `hf auth login` writes).
    pub token: Option<Token>,
    /// The folder that files are kept in (`HF_HUB_CACHE`, else `hub` in `HF_HOME`).
    pub cache: PathBuf,
    /// The cache alone is read (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// A bar on the standard error stream, where that is a terminal
    /// (`HF_HUB_DISABLE_PROGRESS_BARS`).
    pub progress: bool,
    /// How long a connection may take to open, and how long it may be silent.
    pub patience: Duration,
    /// The pause before the second try; each is twice as long as the one before.
    pub pause: Duration,
}

/// A secret, which is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    /// Where it is from, for messages.
    origin: String,
}

impl Token {
    /// The token `text`, which messages say to be from `origin`.
    pub fn new(text: impl Into<String>, origin: impl Into<String>) -> Self {
        Token { text: text.into(), origin: origin.into() }
    }

    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.text)
    }

    /// Where it is from: `HF_TOKEN`, or a file.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(from {})", self.origin)
    }
}

impl Settings {
    /// As the environment says. `progress` is whether a bar is drawn where
    /// `HF_HUB_DISABLE_PROGRESS_BARS` does not say so.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the variable.
    pub fn from_env(progress: bool) -> Result<Self> {
        Self::from_variables(progress, |name| std::env::var_os(name))
    }

    fn from_variables(progress: bool, var: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let text = |name: &str| -> Result<Option<String>> {
            let Some(value) = var(name).filter(|value| !value.is_empty()) else { return Ok(None) };
            let text = value.into_string().map_err(|value| {
                Error::invalid(name, format!("{}", value.display()), "it must be text")
            })?;
            Ok(Some(text))
        };
        let is_true = |name: &str| -> Result<Option<bool>> {
            let value = text(name)?.map(|value| value.to_uppercase());
            Ok(value.map(|value| matches!(value.as_str(), "1" | "ON" | "YES" | "TRUE")))
        };
        let user = var("HOME").map(PathBuf::from);
        let path = |name: &str| {
            let path = var(name).filter(|value| !value.is_empty()).map(PathBuf::from)?;
            Some(match (path.strip_prefix("~"), &user) {
                (Ok(rest), Some(user)) => user.join(rest),
                _ => path,
            })
        };
        let home = path("HF_HOME").or_else(|| {
            let caches = path("XDG_CACHE_HOME").or_else(|| Some(user.as_ref()?.join(".cache")))?;
            Some(caches.join("huggingface"))
        });
        let home = home.ok_or_else(|| {
            let rule = "without it HF_HOME must say where files of the hub are kept";
            Error::invalid("HOME", "not set", rule)
        })?;
        let endpoint = text("HF_ENDPOINT")?.unwrap_or_else(|| ENDPOINT.into());
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let rule = "it must begin with https:// or http://";
            return Err(Error::invalid("HF_ENDPOINT", format!("{endpoint:?}"), rule));
        }
        let variables = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
        let mut token = None;
        for name in variables {
            let given = text(name)?.map(|text| (text, name.to_owned()));
            token = token.or(given);
        }
        let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let implicit = is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN")? != Some(true);
        let token = if implicit { token.or_else(|| read_token(&file)) } else { None };
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let offline = [is_true("HF_HUB_OFFLINE")?, is_true("TRANSFORMERS_OFFLINE")?];
        let disabled = is_true("HF_HUB_DISABLE_PROGRESS_BARS")?;
        Ok(Settings {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.map(|(text, origin)| checked(&text, &origin)).transpose()?,
            cache: cache.unwrap_or_else(|| home.join("hub")),
            offline: offline.contains(&Some(true)),
            progress: disabled.map_or(progress, |disabled| !disabled),
            patience: Duration::from_secs(10),
            pause: Duration::from_secs(1),
        })
    }
}

/// The token in the file at `path`, if there is one.
fn read_token(path: &Path) -> Option<(String, String)> {
    let text = std::fs::read_to_string(path).ok()?;
    (!text.trim().is_empty()).then(|| (text, path.display().to_string()))
}

fn checked(text: &str, origin: &str) -> Result<Token> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        // Never the value: it is a secret.
        let rule = "a token is one line of letters, digits and signs";
        return Err(Error::invalid(origin, "something else than a token", rule));
    }
    Ok(Token::new(text, origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_variables(false, |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_cache_lies_where_huggingface_hub_has_it() {
        let home = ("HOME", "/u");
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[], "/u/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/c")], "/c/huggingface/hub"),
            (&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/c")], "/h/hub"),
            (&[("HF_HOME", "~/h")], "/u/h/hub"),
            (&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/k")], "/k"),
        ];
        for (variables, cache) in cases {
            let settings = of(&[&[home], variables].concat()).unwrap();
            assert_eq!(settings.cache, Path::new(cache), "{variables:?}");
            assert_eq!(settings.endpoint, ENDPOINT);
        }
    }

    #[test]
    fn a_token_is_taken_from_the_variable_then_the_file_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(of(&[("HF_HOME", home)]).unwrap().token, None);
        std::fs::write(folder.path().join("token"), "hf_secret\n").unwrap();
        let token = of(&[("HF_HOME", home)]).unwrap().token.unwrap();
        assert_eq!(token.header(), "Bearer hf_secret");
        assert!(!format!("{token:?}").contains("secret") && token.origin().ends_with("token"));
        let token = of(&[("HF_HOME", home), ("HF_TOKEN", "other")]).unwrap().token.unwrap();
        assert_eq!((token.header().as_str(), token.origin()), ("Bearer other", "HF_TOKEN"));
        let none = of(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).unwrap();
        assert_eq!(none.token, None);
        let refused = of(&[("HF_HOME", home), ("HF_TOKEN", "two words")]).unwrap_err().to_string();
        assert!(refused.contains("HF_TOKEN") && !refused.contains("two words"), "{refused}");
    }

    #[test]
    fn flags_and_addresses_are_read_as_huggingface_hub_reads_them() {
        let home = ("HOME", "/u");
        assert!(of(&[home, ("HF_HUB_OFFLINE", "yes")]).unwrap().offline);
        assert!(!of(&[home, ("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        assert!(of(&[home, ("HF_HUB_DISABLE_PROGRESS_BARS", "0")]).unwrap().progress);
        let settings = of(&[home, ("HF_ENDPOINT", "http://127.0.0.1:1/")]).unwrap();
        assert_eq!(settings.endpoint, "http://127.0.0.1:1");
        let refused = of(&[home, ("HF_ENDPOINT", "hub.example")]).unwrap_err().to_string();
        assert!(refused.starts_with("HF_ENDPOINT is \"hub.example\""), "{refused}");
        assert!(of(&[]).unwrap_err().to_string().starts_with("HOME is not set"));
    }
}
