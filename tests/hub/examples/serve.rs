//! Serves folders as repositories, for trying things by hand:
//!
//! ```text
//! cargo run -p spark-test-hub --example serve -- me/net=folder me/other=other
//! HF_ENDPOINT=… pretrain inspect hf:me/net
//! ```

use std::path::Path;

use test_hub::Hub;

fn main() -> std::io::Result<()> {
    let hub = Hub::start();
    for argument in std::env::args().skip(1) {
        let Some((id, folder)) = argument.split_once('=') else {
            eprintln!("{argument:?} must be OWNER/NAME=FOLDER");
            std::process::exit(2);
        };
        hub.upload(id, Path::new(folder))?;
    }
    println!("HF_ENDPOINT={}", hub.endpoint());
    loop {
        std::thread::park();
    }
}
