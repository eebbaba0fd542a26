//! A real browser without a window, and a program that serves a page to it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::actions::{InputSource, MouseActions, PointerAction};
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::program::Workplace;

/// How long a page may take to show something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that serves its page; ended when dropped.
pub struct Served {
    child: Child,
    /// Where.
    pub url: String,
}

impl Workplace {
    /// `PROGRAM playground` with these arguments, once it tells where its page is.
    pub fn serve(&self, arguments: &[&str]) -> Served {
        let mut command = self.command(&["playground"]);
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://"), "the page's address, not {url:?}");
        Served { child, url: url.trim().to_owned() }
    }
}

impl Served {
    /// The port.
    pub fn port(&self) -> &str {
        self.url.trim_end_matches('/').rsplit(':').next().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Chromium, driven through WebDriver.
pub struct Browser {
    driver: Child,
    runtime: Runtime,
    client: Client,
    folder: tempfile::TempDir,
}

impl Browser {
    /// A window of `width` × `height` pixels; none where there is no browser, which it says, unless
    /// CI is set: there one must be.
    pub fn open(width: u32, height: u32) -> Option<Self> {
        // Without a locale of UTF-8 it finds no file whose name has an accent.
        let started = Command::new("chromedriver")
            .arg("--port=0")
            .env("LC_ALL", "C.UTF-8")
            .stdout(Stdio::piped())
            .spawn();
        let mut driver = match started {
            Ok(driver) => driver,
            Err(error) => {
                let told = format!(
                    "no browser to test pages in (chromedriver: {error}); Debian's packages are \
                     chromium and chromium-driver"
                );
                assert!(std::env::var_os("CI").is_none(), "{told}");
                eprintln!("NOT TESTED: {told}");
                return None;
            }
        };
        let port = port_of(&mut driver);
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let wanted = capabilities(folder.path(), width, height);
        let mut builder = ClientBuilder::new(http());
        builder.capabilities(wanted);
        let client = runtime.block_on(builder.connect(&format!("http://127.0.0.1:{port}")));
        let client = client.unwrap_or_else(|error| {
            let _ = driver.kill();
            panic!("chromium does not start: {error}")
        });
        Some(Self { driver, runtime, client, folder })
    }

    pub fn go(&self, url: &str) {
        self.runtime.block_on(self.client.goto(url)).unwrap();
    }

    /// What a script returns; it may await.
    pub fn run(&self, script: &str) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1]; (async () => {{ {script} }})()\
             .then(done, (error) => done('failed: ' + error));"
        );
        let told = self.runtime.block_on(self.client.execute_async(&script, Vec::new())).unwrap();
        let failed = told.as_str().is_some_and(|text| text.starts_with("failed: "));
        assert!(!failed, "{told}\n{script}");
        told
    }

    /// What an element says.
    pub fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({}).textContent", json!(selector));
        self.run(&script).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression holds, and nothing is asked any more.
    pub fn wait(&self, expression: &str) {
        let began = Instant::now();
        let asks = "(document.body.dataset.waits ?? '0') === '0'";
        loop {
            let script = format!("return !!({expression}) && {asks}");
            if self.run(&script) == Value::Bool(true) {
                return;
            }
            let status = self.text("#status");
            assert!(began.elapsed() < PATIENCE, "never: {expression}; the page says {status:?}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    pub fn click(&self, selector: &str) {
        self.runtime.block_on(async {
            self.client.find(Locator::Css(selector)).await.unwrap().click().await.unwrap();
        });
    }

    /// Types into an element, which has the keys from then on.
    pub fn keys(&self, selector: &str, keys: &str) {
        self.runtime.block_on(async {
            let element = self.client.find(Locator::Css(selector)).await.unwrap();
            element.send_keys(keys).await.unwrap();
        });
    }

    /// Moves a slider or fills in a number, as a user's hand would tell the page.
    pub fn slide(&self, selector: &str, value: &str) {
        self.run(&format!(
            "const it = document.querySelector({}); it.value = {}; \
             it.dispatchEvent(new Event('input', {{ bubbles: true }})); \
             it.dispatchEvent(new Event('change', {{ bubbles: true }}));",
            json!(selector),
            json!(value)
        ));
    }

    /// Presses the mouse at the first of these places of an element (shares of its width and
    /// height), draws it over the others and lets go.
    pub fn stroke(&self, selector: &str, places: &[(f64, f64)]) {
        let script = format!(
            "const it = document.querySelector({}); it.scrollIntoView({{ block: 'center' }}); \
             const box = it.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]",
            json!(selector)
        );
        let area: Vec<f64> = serde_json::from_value(self.run(&script)).unwrap();
        let mut mouse = MouseActions::new("mouse".to_owned());
        for (index, (x, y)) in places.iter().enumerate() {
            let at = |start: f64, side: f64, share: f64| (start + side * share).round();
            let (x, y) = (at(area[0], area[2], *x), at(area[1], area[3], *y));
            mouse = mouse.then(PointerAction::MoveTo { duration: None, x, y });
            if index == 0 {
                mouse = mouse.then(PointerAction::Down { button: 0 });
            }
        }
        let mouse = mouse.then(PointerAction::Up { button: 0 });
        self.runtime.block_on(self.client.perform_actions(mouse)).unwrap();
    }

    /// The file that the page saves when `selector` is clicked.
    pub fn download(&self, selector: &str, name: &str) -> Vec<u8> {
        let path = self.folder.path().join(name);
        let _ = std::fs::remove_file(&path);
        self.click(selector);
        let began = Instant::now();
        while !path.exists() {
            assert!(began.elapsed() < PATIENCE, "{name} was not saved");
            std::thread::sleep(Duration::from_millis(30));
        }
        std::fs::read(path).unwrap()
    }

    /// Another tab, which is in front from now on; with the name of the one before.
    pub fn new_tab(&self) -> String {
        self.runtime.block_on(async {
            let before = self.client.window().await.unwrap();
            let tab = self.client.new_window(true).await.unwrap();
            self.client.switch_to_window(tab.handle).await.unwrap();
            String::from(before)
        })
    }

    /// The tab of this name to the front.
    pub fn show_tab(&self, name: String) {
        self.runtime.block_on(async {
            let tab = name.try_into().unwrap();
            self.client.switch_to_window(tab).await.unwrap();
        });
    }

    /// A file in the folder that downloads go to.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.client.clone().close());
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn http() -> hyper_util::client::legacy::connect::HttpConnector {
    hyper_util::client::legacy::connect::HttpConnector::new()
}

/// The port that the driver says it took.
fn port_of(driver: &mut Child) -> u16 {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let told = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, rest) = line.split_once("successfully on port ")?;
        rest.trim_end_matches('.').parse().ok()
    });
    // Whoever writes to a closed pipe is ended.
    std::thread::spawn(move || lines.for_each(drop));
    told.expect("chromedriver's port")
}

fn capabilities(folder: &Path, width: u32, height: u32) -> Map<String, Value> {
    let arguments = [
        "--headless=new".to_owned(),
        // Containers and root have no sandbox.
        "--no-sandbox".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        format!("--window-size={width},{height}"),
        format!("--user-data-dir={}", folder.join("profile").display()),
    ];
    let preferences = json!({
        "download.default_directory": folder.display().to_string(),
        "download.prompt_for_download": false,
    });
    let options = json!({ "args": arguments, "prefs": preferences });
    let timeouts = json!({ "script": 30_000 });
    [("goog:chromeOptions".to_owned(), options), ("timeouts".to_owned(), timeouts)]
        .into_iter()
        .collect()
}
