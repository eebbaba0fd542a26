//! Serves folders as repositories, for trying things by hand:
//!
//! ```text
//! cargo run -p spark-test-hub --example serve -- me/net=folder me/other=other
//! HF_ENDPOINT=… pretrain inspect hf:me/net
//! ```

use std::path::Path;

use test_hub::{File, Hub};

fn main() -> std::io::Result<()> {
    let hub = Hub::start();
    for argument in std::env::args().skip(1) {
        let Some((id, folder)) = argument.split_once('=') else {
            eprintln!("{argument:?} must be OWNER/NAME=FOLDER");
            std::process::exit(2);
        };
        let files = files(Path::new(folder))?;
        let files: Vec<(&str, File)> = files.iter().map(|(n, f)| (n.as_str(), f.clone())).collect();
        hub.change(id, |repo| {
            repo.commit("main", &files);
        });
    }
    println!("HF_ENDPOINT={}", hub.endpoint());
    loop {
        std::thread::park();
    }
}

/// The files that lie in `folder`, the large ones for the CDN.
fn files(folder: &Path) -> std::io::Result<Vec<(String, File)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let (name, bytes) =
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?);
        let is_text = name.ends_with(".md") || name.ends_with(".json");
        files.push((name, if is_text { File::small(bytes) } else { File::large(bytes) }));
    }
    Ok(files)
}
