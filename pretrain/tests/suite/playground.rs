//! The page of `pretrain playground`, in a real browser.

use serde_json::{Value, json};

use crate::common::{Browser, Served, Workplace, shorter, with_images};

/// Two checkpoints, and a page on both.
fn runs() -> Workplace {
    let work = with_images(4);
    work.train("first", &shorter(&[])).succeeded();
    work.train("second", &shorter(&["--seed", "7", "--base-lr", "0.2"])).succeeded();
    work
}

const SETTINGS: &str = "--weights first --images images --input-size 128 --device cpu --threads 1";

fn serve(work: &Workplace, more: &[&str]) -> Served {
    let settings: Vec<&str> = SETTINGS.split(' ').collect();
    work.serve(&[settings, more.to_vec()].concat())
}

/// The page, once the first picture is reconstructed.
fn open(browser: &Browser, served: &Served) {
    browser.go(&served.url);
    browser.wait("document.getElementById('reconstruction-caption').dataset.losses");
}

/// A browser of this size, if there is one, the checkpoints, and the page on them.
fn shown(width: u32, height: u32, more: &[&str]) -> Option<(Browser, Workplace, Served)> {
    let browser = Browser::open(width, height)?;
    let work = runs();
    let served = serve(&work, more);
    open(&browser, &served);
    Some((browser, work, served))
}

fn losses(browser: &Browser) -> Vec<f64> {
    let losses =
        browser.run("return document.getElementById('reconstruction-caption').dataset.losses");
    serde_json::from_str(losses.as_str().unwrap()).unwrap()
}

/// The loss that `pretrain reconstruct` prints for the first picture.
fn loss_of_command(work: &Workplace, weights: &str, mask: &[&str]) -> f64 {
    let image = "images/class0/000.png";
    let fixed =
        ["reconstruct", "--weights", weights, "--input-size", "128", "--output", "sheet.png"];
    let told = work.run(&[&fixed, mask, &[image]].concat()).succeeded();
    let told = told.out.split_once("loss ").unwrap().1.split(' ').next().unwrap();
    told.parse().unwrap()
}

fn masked(browser: &Browser) -> u64 {
    browser.text("#count").split(' ').next().unwrap().parse().unwrap()
}

/// A number of a canvas that is another when its picture is.
fn look(browser: &Browser, id: &str) -> f64 {
    let script = format!(
        "const it = document.getElementById('{id}'); \
         const {{ data }} = it.getContext('2d').getImageData(0, 0, it.width, it.height); \
         return data.reduce((sum, value, at) => (sum * 31 + value * (at % 7 + 1)) % 1000003, 7)"
    );
    browser.run(&script).as_f64().unwrap()
}

/// The middle of patch (row, column) of 4 × 4.
fn patch(row: u32, column: u32) -> (f64, f64) {
    (f64::from(2 * column + 1) / 8.0, f64::from(2 * row + 1) / 8.0)
}

#[test]
fn masks_are_painted_and_reconstructed_as_the_command_does() {
    let Some((browser, work, _served)) = shown(1280, 1000, &["--compare", "second"]) else {
        return;
    };
    assert_eq!(browser.text("#models").matches(" patches").count(), 1);

    // As drawn: ten of sixteen, the same as the command's.
    assert_eq!(masked(&browser), 10);
    let told = losses(&browser);
    let drawn = ["--mask-ratio", "0.6"];
    let wanted = ["first", "second"].map(|run| loss_of_command(&work, run, &drawn));
    // Four digits are printed.
    let near =
        |told: &[f64], wanted: &[f64]| told.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 6e-5);
    assert!(near(&told, &wanted), "{told:?} {wanted:?}");
    assert!((told[0] - told[1]).abs() > 1e-4, "{told:?}");

    // Painted: from nothing masked, one click, one stroke over three more, and back.
    browser.click("#show-all");
    browser.wait("document.getElementById('count').textContent.startsWith('0 of 16')");
    browser.stroke("#masked", &[patch(1, 1)]);
    browser.stroke("#masked", &[patch(2, 0), patch(2, 1), patch(2, 2)]);
    browser.wait("document.getElementById('count').textContent.startsWith('4 of 16')");
    browser.stroke("#masked", &[patch(2, 0)]);
    browser.wait("document.getElementById('count').textContent.startsWith('3 of 16')");
    let mask = browser.download("#save-mask", "mask.json");
    let file: Value = serde_json::from_slice(&mask).unwrap();
    let rows = json!([[1, 1, 1, 1], [1, 0, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]]);
    assert_eq!(file, json!({ "patches": [4, 4], "visible": rows }));
    std::fs::write(work.path("mask.json"), &mask).unwrap();
    let wanted =
        ["first", "second"].map(|run| loss_of_command(&work, run, &["--mask", "mask.json"]));
    let told = losses(&browser);
    assert!(near(&told, &wanted), "{told:?} {wanted:?}");

    // By keys: from the first patch two down, one right: unmask; one up: unmask, too.
    browser.click("#reconstruction");
    browser.keys("#masked", "\u{E015}");
    browser.keys("#masked", " ");
    let keyed = masked(&browser);
    assert!(keyed == 2 || keyed == 4, "{keyed}");
    browser.keys("#masked", " ");
    browser.wait("document.getElementById('count').textContent.startsWith('3 of 16')");

    // Slider, seed, inversion; what would mask everything is refused.
    browser.slide("#ratio", "0.75");
    browser.wait("document.getElementById('count').textContent.startsWith('12 of 16')");
    let first = look(&browser, "masked");
    browser.click("#again");
    browser.wait("document.getElementById('seed').value === '1'");
    assert_ne!(look(&browser, "masked"), first);
    let wanted = loss_of_command(&work, "first", &["--mask-ratio", "0.75", "--seed", "1"]);
    assert!(near(&losses(&browser)[..1], &[wanted]));
    browser.click("#invert");
    browser.wait("document.getElementById('count').textContent.startsWith('4 of 16')");
    browser.click("#show-all");
    browser.click("#invert");
    let status = browser.text("#status");
    assert!(status.starts_with("At least one patch must stay visible"), "{status}");
    assert_eq!(masked(&browser), 0);

    // The divider between the two, and the prediction alone.
    browser.slide("#ratio", "0.5");
    browser.wait("document.getElementById('count').textContent.startsWith('8 of 16')");
    let middle = look(&browser, "reconstruction");
    browser.slide("#divide", "1");
    let left = look(&browser, "reconstruction");
    browser.slide("#divide", "0");
    let right = look(&browser, "reconstruction");
    assert!(middle != left && left != right && middle != right);
    browser.click("#alone");
    assert_ne!(look(&browser, "reconstruction"), right);
    let png = browser.download("#save-picture", "000-reconstruction.png");
    let sheet = image::load_from_memory(&png).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (4 * 136 - 8, 128));
}

#[test]
fn features_and_the_vanishing_mask_are_shown() {
    let Some((browser, _work, _served)) = shown(500, 900, &["--compare", "second"]) else { return };
    // A phone shows it, too: nothing reaches beyond its sides.
    let overflow =
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    let fits = || assert!(browser.run(overflow).as_f64().unwrap() <= 0.0);
    fits();

    browser.keys("#tab-reconstruct", "\u{E014}");
    browser.wait("document.querySelector('#stages canvas:last-of-type')?.dataset.values");
    let stages = browser.run("return document.querySelectorAll('#stages figure').length");
    assert!(stages.as_u64().unwrap() >= 3, "{stages}");
    let (colours, similar) = (look(&browser, "colours-0"), look(&browser, "similar-0"));
    browser.stroke("#pointed", &[(0.1, 0.1)]);
    browser.wait("true");
    std::thread::sleep(std::time::Duration::from_millis(200));
    browser.wait("true");
    assert_ne!(look(&browser, "similar-0"), similar);
    browser.click("#visible-alone");
    browser.wait("true");
    assert_ne!(look(&browser, "colours-0"), colours);
    fits();

    browser.click("#tab-sparse");
    browser.wait("document.querySelector('#network option')");
    browser.slide("#network", "0");
    browser.slide("#layer", "0");
    let share = |kind: &str| -> f64 {
        let text = browser.text(&format!("#{kind}-caption"));
        text.split_once(": ").unwrap().1.split(' ').next().unwrap().parse().unwrap()
    };
    let start = (share("dense"), share("sparse"));
    assert_eq!(start.0, start.1);
    browser.slide("#layer", "8");
    assert!(share("dense") > start.0 + 10.0, "{start:?} {}", share("dense"));
    assert_eq!(share("sparse"), start.1);
    fits();
}

#[test]
fn files_of_ones_own_are_taken_and_what_is_no_picture_is_refused() {
    let Some((browser, _work, _served)) = shown(1280, 900, &["--max-megapixels", "1"]) else {
        return;
    };
    let before = look(&browser, "original");

    let own = browser.path("café.png");
    crate::common::blobs(99).save(&own).unwrap();
    browser.keys("#upload", own.to_str().unwrap());
    browser.wait("document.getElementById('picture-name').textContent === 'café.png'");
    let mine = look(&browser, "original");
    assert_ne!(mine, before);
    let told = losses(&browser);

    std::fs::write(browser.path("notes.jpg"), "to do: buy milk").unwrap();
    browser.keys("#upload", browser.path("notes.jpg").to_str().unwrap());
    browser.wait("document.getElementById('status').className === 'error'");
    let refused = browser.text("#status");
    assert_eq!(refused, "notes.jpg: not a JPEG, PNG, WebP, BMP, TIFF or .npy file");
    image::RgbImage::new(2000, 1000).save(browser.path("large.png")).unwrap();
    browser.keys("#upload", browser.path("large.png").to_str().unwrap());
    browser.wait("document.getElementById('status').textContent.startsWith('large.png has 2000')");
    // A file that has the right beginning, and no pictures of its own.
    let mut torn = std::fs::read(&own).unwrap();
    torn.truncate(200);
    std::fs::write(browser.path("torn.png"), torn).unwrap();
    browser.keys("#upload", browser.path("torn.png").to_str().unwrap());
    browser.wait("document.getElementById('status').textContent.startsWith('torn.png: un')");

    // Nothing is lost by that: one's own picture is reconstructed again.
    browser.click("#pictures button[title='café.png']");
    browser.wait("document.getElementById('picture-name').textContent === 'café.png'");
    assert_eq!(look(&browser, "original"), mine);
    assert_eq!(losses(&browser), told);

    // The server forgets the oldest; the page sends it again.
    browser.run(
        "for (let i = 0; i < 33; i++) { const body = await (await fetch('pictures/0')).blob(); \
         await fetch('pictures', { method: 'POST', headers: { 'x-name': 'more.jpg' }, body }); }",
    );
    browser.click("#pictures button[title='café.png']");
    browser.slide("#ratio", "0.3");
    browser.wait("document.getElementById('count').textContent.startsWith('5 of 16')");
    assert_eq!(look(&browser, "original"), mine);
    assert_eq!(browser.text("#status"), "");
}

#[test]
fn two_tabs_are_answered_and_a_page_outlives_its_program() {
    let Some((browser, work, served)) = shown(1280, 900, &[]) else { return };
    let first = browser.new_tab();
    open(&browser, &served);
    browser.slide("#ratio", "0.3");
    browser.show_tab(first.clone());
    browser.slide("#ratio", "0.8");
    browser.wait("document.getElementById('count').textContent.startsWith('13 of 16')");
    let told = losses(&browser);

    // Ended and started between two questions, so that the page never found it gone.
    let port = served.port().to_owned();
    drop(served);
    let served = serve(&work, &["--port", &port]);
    browser.slide("#ratio", "0.6");
    let anew = "document.getElementById('status').textContent === 'The program was started anew.'";
    browser.wait(anew);
    browser.slide("#ratio", "0.8");
    browser.wait("document.getElementById('count').textContent.startsWith('13 of 16')");
    assert_eq!(losses(&browser), told);

    drop(served);
    browser.slide("#ratio", "0.5");
    browser.wait("document.getElementById('status').className === 'error'");
    let status = browser.text("#status");
    assert_eq!(status, "The program does not answer. Is it still running?");
    let again = serve(&work, &["--port", &port]);
    assert_eq!(again.port(), port);
    browser.wait(anew);
    browser.slide("#ratio", "0.8");
    browser.wait("document.getElementById('count').textContent.startsWith('13 of 16')");
    assert_eq!(losses(&browser), told);
}

#[test]
fn what_cannot_be_shown_is_refused_before_a_page_is_served() {
    let work = runs();
    let refused = |arguments: &str, parts: &[&str]| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        work.run(&[&["playground"], &arguments[..]].concat()).refused(parts);
    };
    refused("--weights nowhere", &["nowhere"]);
    refused("--weights first --images nothing", &["nothing is not there"]);
    refused("--weights first --compare first", &["compare is first, but"]);
    refused("--weights first --input-size 100", &["100"]);
    refused("--weights tiny.pt2 --model tiny.pt2", &["no SparK decoder"]);
}
