//! TensorBoard event files as a reader sees them that shares nothing with
//! the writer.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::metrics::TensorBoardWriter;
use serde_json::{Value, json};

/// A grey PNG picture of 3×2 pixels, all but the header made up: it is not
/// decoded.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x03\0\0\0\x02\x08\0\0\0\0rest";

#[test]
fn scalars_pictures_and_text_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = TensorBoardWriter::create(folder.path(), Some(300)).unwrap();
    writer.scalar("train/loss", 300, 0.25).unwrap();
    writer.scalar("lr", 1 << 40, -1e-30).unwrap();
    writer.image("reconstruction", 301, PNG).unwrap();
    // Longer than one length byte can say.
    let text = "é".repeat(200);
    writer.text("config", 0, &text).unwrap();

    let mut events = read(writer.path());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    for event in &mut events {
        let time = event.as_object_mut().unwrap().remove("wall_time").unwrap().as_f64().unwrap();
        assert!((now - time).abs() < 600.0, "{time} is not about now, {now}");
    }
    let png: String = PNG.iter().map(|byte| format!("{byte:02x}")).collect();
    let value = |value: Value| json!({ "value": [value] });
    let expected = [
        json!({ "step": 0, "file_version": "brain.Event:2" }),
        json!({ "step": 300, "session_log": { "status": 1 } }),
        json!({ "step": 300, "summary": value(json!({ "tag": "train/loss", "simple_value": 0.25 })) }),
        json!({ "step": 1u64 << 40,
                "summary": value(json!({ "tag": "lr", "simple_value": f64::from(-1e-30f32) })) }),
        json!({ "step": 301, "summary": value(json!({ "tag": "reconstruction", "image":
            { "height": 2, "width": 3, "colorspace": 1, "encoded": png } })) }),
        json!({ "step": 0, "summary": value(json!({ "tag": "config",
            "tensor": { "dtype": 7, "shape": { "dim": [{ "size": 1 }] }, "string_val": [text] },
            "metadata": { "plugin_data": { "plugin_name": "text" } } })) }),
    ];
    assert_eq!(events, expected);
}

fn read(file: &std::path::Path) -> Vec<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/tensorboard_reader.py");
    let output = Command::new(spark_tests::python()).arg(script).arg(file).output();
    let output = output.expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
