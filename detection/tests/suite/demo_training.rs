//! A detector learns the demo's data set.

use std::time::{Duration, Instant};

use crate::common::{empty, read, words};
use detection::evaluation::Report;

/// Box and mask AP that must be reached on the held-out images, and the time
/// for it on two cores.
const BOX_AP: f64 = 0.5;
const MASK_AP: f64 = 0.4;
const TIME: Duration = Duration::from_secs(20 * 60);

#[test]
#[ignore = "20 minutes on two cores: cargo test --release -p spark-detection --test suite \
            demo_training -- --ignored --nocapture"]
fn half_of_box_ap_within_twenty_minutes_on_two_cores() {
    let work = empty();
    let photos = std::env::var("SPARK_DEMO_PHOTOS")
        .unwrap_or_else(|_| format!("{}/../target/demo/photos", env!("CARGO_MANIFEST_DIR")));
    assert!(
        std::path::Path::new(&photos).is_dir(),
        "{photos} is not there: `cargo xtask photos` makes it, SPARK_DEMO_PHOTOS names another"
    );
    work.run(&["make-demo", "--photos", &photos, "--output", "data", "--seed", "0"]).succeeded();
    let began = Instant::now();
    let arguments = "train --data data --output run --preset demo --threads 2 --workers 1 \
                     --device cpu --seed 0";
    let told = work.run(&words(arguments)).succeeded();
    let took = began.elapsed();
    eprintln!("{}\n{}\n{took:?}", told.err, told.out);
    let report: Report = serde_json::from_slice(&read(work.path("run/report.json"))).unwrap();
    let (boxes, masks) = (report.bbox.unwrap().figures.ap, report.segm.unwrap().figures.ap);
    assert!(boxes >= BOX_AP && masks >= MASK_AP, "box AP {boxes:.3}, mask AP {masks:.3}");
    assert!(took <= TIME, "{took:?}");
}
