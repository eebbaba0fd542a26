//! The page of `classify playground`, in a real browser.

use crate::common::{Browser, with_images, words};

#[test]
fn the_likely_classes_are_those_of_the_command() {
    let Some(browser) = Browser::open(500, 900) else { return };
    let work = with_images(6);
    work.train("run", &words("--epochs 2")).succeeded();
    let served = work.serve(&words("--weights run --images images/val --device cpu --threads 1"));
    browser.go(&served.url);
    browser.wait("document.querySelectorAll('#bars .share').length === 3");

    let predict = "predict --weights run --top 3 --json out.json --device cpu --threads 1";
    work.run(&[words(predict), vec!["images/val"]].concat()).succeeded();
    let predictions = work.json("out.json");
    let rows = "return [...document.querySelectorAll('#bars > div')].map((it) => it.textContent)";
    let mut shown = Vec::new();
    for (at, prediction) in predictions.as_array().unwrap().iter().enumerate() {
        let name = prediction["file"].as_str().unwrap().strip_prefix("images/val/").unwrap();
        browser.click(&format!("#pictures button:nth-child({})", at + 1));
        browser
            .wait(&format!("document.getElementById('caption').textContent.startsWith('{name}')"));
        let told = browser.run(rows);
        let told: Vec<&str> =
            told.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        for (row, guess) in told.chunks(3).zip(prediction["classes"].as_array().unwrap()) {
            let share = format!("{:.1} %", 100.0 * guess["probability"].as_f64().unwrap());
            assert_eq!(
                (row[0], row[2]),
                (guess["name"].as_str().unwrap(), share.as_str()),
                "{name}"
            );
        }
        shown.push(told.join(" "));
    }
    assert_eq!(shown.len(), 12);
    assert!(shown.iter().any(|text| *text != shown[0]), "{shown:?}");

    browser.slide("#top", "1");
    browser.wait("document.querySelectorAll('#bars .share').length === 1");
    std::fs::write(browser.path("notes.png"), "no picture").unwrap();
    browser.keys("#upload", browser.path("notes.png").to_str().unwrap());
    browser.wait("document.getElementById('status').textContent.startsWith('notes.png: not a ')");
}
