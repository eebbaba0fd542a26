//! Serves folders as buckets, for trying things by hand:
//!
//! ```text
//! cargo run -p spark-test-objects --example serve_objects -- --delay 50 photos=folder
//! AWS_ENDPOINT_URL=… … pretrain train --data s3://photos/ --output runs/first
//! ```

use std::path::Path;
use std::time::Duration;

use test_objects::Objects;

fn main() -> std::io::Result<()> {
    let objects = Objects::start();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--delay" {
            let Some(Ok(delay)) = arguments.next().map(|delay| delay.parse()) else {
                eprintln!("--delay needs milliseconds");
                std::process::exit(2);
            };
            objects.delay(Duration::from_millis(delay));
            continue;
        }
        let Some((bucket, folder)) = argument.split_once('=') else {
            eprintln!("{argument:?} must be BUCKET=FOLDER");
            std::process::exit(2);
        };
        objects.bucket(bucket);
        objects.upload(bucket, "", Path::new(folder))?;
    }
    for (name, value) in objects.env() {
        println!("export {name}={value}");
    }
    println!("# serving until it is stopped");
    loop {
        std::thread::park();
    }
}
