//! The page of `detect playground`, in a real browser.

use serde_json::Value;

use crate::common::{Browser, with_data, words};

#[test]
fn what_is_found_is_filtered_in_the_page_and_saved_as_the_command_writes_it() {
    let Some(browser) = Browser::open(1280, 1000) else { return };
    let work = with_data(4);
    work.train("run", &words("--epochs 1 --device cpu --threads 1")).succeeded();
    let arguments =
        "--weights run --images demo/val --score-threshold 0.06 --device cpu --threads 1";
    let served = work.serve(&words(arguments));
    browser.go(&served.url);
    browser.wait("document.getElementById('count').textContent.includes('found')");
    let count = || -> (usize, usize) {
        let text = browser.text("#count");
        let mut numbers = text.split(' ').filter_map(|word| word.parse().ok());
        (numbers.next().unwrap(), numbers.next().unwrap())
    };
    let name = browser.text("#picture-name");
    let stem = name.split('.').next().unwrap();

    // What the command finds.
    let image = format!("demo/val/{name}");
    let predict = ["predict", "--weights", "run", "--output", "found", "--no-pictures"];
    let more = ["--score-threshold", "0.06", "--device", "cpu", "--threads", "1", &image];
    work.run(&[&predict[..], &more].concat()).succeeded();
    let written = std::fs::read(work.path("found/predictions.json")).unwrap();
    let written: Value = serde_json::from_slice(&written).unwrap();
    let objects = written["annotations"].as_array().unwrap();
    assert!(objects.len() > 3, "{}", objects.len());
    assert_eq!(count().0, objects.len());
    let saved = browser.download("#save-json", &format!("{stem}.json"));
    let saved: Value = serde_json::from_slice(&saved).unwrap();
    let same =
        numbers_as_floats(&saved["annotations"]) == numbers_as_floats(&written["annotations"]);
    assert!(same, "{saved}\n{written}");
    assert_eq!(saved["categories"], written["categories"]);

    // Filtered without asking again.
    let asked = "return performance.getEntriesByType('resource').filter(({ name }) => \
                 name.includes('/ask/')).length";
    let before = browser.run(asked);
    let scores: Vec<f64> = objects.iter().map(|object| object["score"].as_f64().unwrap()).collect();
    let threshold = (scores[scores.len() / 2] * 100.0).ceil() / 100.0;
    browser.slide("#threshold", &threshold.to_string());
    let wanted = scores.iter().filter(|score| **score >= threshold).count();
    assert_eq!(count().0, wanted);
    browser.slide("#threshold", "0.06");
    browser.click("#none");
    assert_eq!(count().0, 0);
    browser.click("#class-list input");
    let first = &written["categories"][0]["id"];
    let of_first = objects.iter().filter(|object| object["category_id"] == *first).count();
    assert_eq!(count().0, of_first);
    assert_eq!(browser.run(asked), before);

    // Another picture, and back: the filter stays.
    browser.click("#pictures button:nth-child(2)");
    browser.wait(&format!("document.getElementById('picture-name').textContent !== '{name}'"));
    browser.click("#pictures button:nth-child(1)");
    browser.wait(&format!("document.getElementById('caption').textContent.startsWith('{name}')"));
    assert_eq!(count().0, of_first);
}

/// JavaScript writes 1.0 as 1.
fn numbers_as_floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(items) => items.iter().map(numbers_as_floats).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), numbers_as_floats(value))).collect()
        }
        other => other.clone(),
    }
}
