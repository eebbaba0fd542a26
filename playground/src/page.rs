//! The files of a page, which are part of the program.

/// Style and script that all pages share, by the paths that pages name.
const SHARED: [(&str, &str); 4] = [
    ("style.css", include_str!("../page/style.css")),
    ("server.js", include_str!("../page/server.js")),
    ("pictures.js", include_str!("../page/pictures.js")),
    ("draw.js", include_str!("../page/draw.js")),
];

/// A page: its document, and the scripts that it loads besides the shared ones.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// The HTML document.
    pub html: &'static str,
    /// Names and contents of its own scripts (`.js`) and styles (`.css`).
    pub files: &'static [(&'static str, &'static str)],
}

impl Page {
    /// The file of this name, and its type.
    pub(crate) fn file(&self, name: &str) -> Option<(&'static str, &'static str)> {
        let mut all = self.files.iter().chain(&SHARED);
        let (name, content) = all.find(|(own, _)| *own == name)?;
        let kind = match name.ends_with(".css") {
            true => "text/css; charset=utf-8",
            false => "text/javascript; charset=utf-8",
        };
        Some((content, kind))
    }
}
