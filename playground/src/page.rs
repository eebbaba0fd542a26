//! The files of a page, which are part of the program.

/// What all pages have around their own part: the choice of a picture, the status line.
const DOCUMENT: &str = include_str!("../page/page.html");

/// Style and scripts that all pages share, by the names that pages load them by.
const SHARED: [(&str, &str); 4] = [
    ("style.css", include_str!("../page/style.css")),
    ("server.js", include_str!("../page/server.js")),
    ("pictures.js", include_str!("../page/pictures.js")),
    ("draw.js", include_str!("../page/draw.js")),
];

/// A program's own part of its page.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// What the program is called; the page loads its script `PROGRAM.js`.
    pub program: &'static str,
    /// HTML of the tabs of its views, empty if there is one view.
    pub tabs: &'static str,
    /// HTML below the choice of a picture.
    pub body: &'static str,
    /// Names and contents of its own scripts (`.js`).
    pub files: &'static [(&'static str, &'static str)],
}

impl Page {
    /// The HTML document.
    pub(crate) fn document(&self) -> String {
        let program = DOCUMENT.replace("{program}", self.program);
        program.replace("{tabs}", self.tabs).replace("{body}", self.body)
    }

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
