//! The server as browsers, and others, meet it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use image::{ImageFormat, RgbImage};
use playground::{App, Page, Question, ServeFlags, Server};
use serde_json::{Value, json};

const PAGE: Page = Page {
    program: "own",
    tabs: "",
    body: "<p>here",
    files: &[("own.js", "export const own = 1;")],
};

/// Tells what it was asked; `slow` takes its time.
struct Echo;

impl App for Echo {
    fn about(&self) -> Value {
        json!("an echo")
    }

    fn answer(&mut self, question: &Question) -> Result<Value> {
        match question.name.as_str() {
            "echo" => Ok(json!({
                "body": question.body,
                "picture": question.picture.as_ref().map(|picture| &picture.name),
            })),
            "slow" => {
                thread::sleep(Duration::from_millis(400));
                Ok(json!("done"))
            }
            "read" => Ok(json!(question.picture()?.read()?.0.len())),
            other => bail!("there is no question {other:?}"),
        }
    }
}

fn flags(images: Vec<PathBuf>) -> ServeFlags {
    ServeFlags {
        images,
        port: 0,
        listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
        open: false,
        max_upload: 1,
        max_megapixels: 2,
        allow_host: vec!["proxy.example".to_owned()],
        allow_frame: vec!["https://hub.example".to_owned()],
    }
}

/// A server that lives as long as the test program.
fn start(images: Vec<PathBuf>) -> SocketAddr {
    let server = Server::bind(&flags(images), PAGE).unwrap();
    let address = server.address();
    thread::spawn(move || server.run(&mut Echo).unwrap());
    address
}

struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

fn send(address: SocketAddr, request: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A server that refuses does not read on.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, head, body: answer[end + 4..].to_vec() }
}

fn request(address: SocketAddr, first: &str, headers: &str, body: &[u8]) -> Response {
    let head = format!(
        "{first} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-length: \
         {}\r\n\r\n",
        body.len()
    );
    send(address, &[head.as_bytes(), body].concat())
}

fn get(address: SocketAddr, path: &str) -> Response {
    request(address, &format!("GET {path}"), "", b"")
}

fn ask(address: SocketAddr, name: &str, body: Value) -> Response {
    request(address, &format!("POST /ask/{name}"), "", body.to_string().as_bytes())
}

fn upload(address: SocketAddr, name: &str, bytes: &[u8]) -> Response {
    request(address, "POST /pictures", &format!("x-name: {name}\r\n"), bytes)
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    RgbImage::from_pixel(width, height, image::Rgb([200, 30, 30]))
        .write_to(&mut bytes, ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// A folder of two pictures, and a file beside it that is nobody's business.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let all = tempfile::tempdir().unwrap();
    let photos = all.path().join("photos");
    std::fs::create_dir_all(photos.join("more")).unwrap();
    std::fs::write(photos.join("a.png"), png(300, 200)).unwrap();
    std::fs::write(photos.join("more/b.png"), png(20, 30)).unwrap();
    std::fs::write(all.path().join("secret.txt"), "hidden words").unwrap();
    (all, photos)
}

#[test]
fn the_page_its_files_and_its_pictures_are_served() {
    let (_all, photos) = folder();
    let address = start(vec![photos]);
    let page = get(address, "/");
    let html = String::from_utf8(page.body).unwrap();
    assert_eq!(page.status, 200);
    assert!(
        html.contains("<p>here") && html.contains("page/own.js") && !html.contains('{'),
        "{html}"
    );
    for rule in
        ["default-src 'none'", "script-src 'self'", "frame-ancestors 'self' https://hub.example"]
    {
        assert!(page.head.contains(rule), "{}", page.head);
    }
    assert!(page.head.contains("x-content-type-options: nosniff"), "{}", page.head);
    let own = get(address, "/page/own.js");
    assert!(own.status == 200 && own.head.contains("text/javascript"), "{}", own.head);
    assert!(get(address, "/page/style.css").head.contains("text/css"));

    let about = get(address, "/about").json();
    assert_eq!(about["app"], "an echo");
    let named = json!([{ "id": 0, "name": "a.png" }, { "id": 1, "name": "more/b.png" }]);
    assert_eq!(about["pictures"], named);
    let small = get(address, "/pictures/0");
    assert!(small.head.contains("image/jpeg"), "{}", small.head);
    let small = image::load_from_memory(&small.body).unwrap();
    assert_eq!((small.width(), small.height()), (128, 85));

    let told = ask(address, "echo", json!({ "picture": 1, "more": [1, 2] })).json();
    assert_eq!(told, json!({ "body": { "picture": 1, "more": [1, 2] }, "picture": "more/b.png" }));
}

#[test]
fn no_other_file_can_be_had() {
    let (all, photos) = folder();
    std::fs::remove_file(photos.join("a.png")).unwrap();
    std::os::unix::fs::symlink(all.path().join("secret.txt"), photos.join("link.txt")).unwrap();
    let address = start(vec![photos]);
    let paths = [
        "/page/../../Cargo.toml",
        "/page/..%2f..%2fCargo.toml",
        "/page/%2fetc%2fpasswd",
        "/pictures/../secret.txt",
        "/pictures/..%2fsecret.txt",
        "/pictures/1",
        "/pictures/-1",
        "/pictures/link.txt",
        "/secret.txt",
        "//etc/passwd",
        "/ask/echo",
    ];
    for path in paths {
        let answer = get(address, path);
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
        assert!(!answer.body.windows(12).any(|part| part == b"hidden words"), "{path}");
    }
    assert_eq!(ask(address, "echo", json!({ "picture": 7 })).status, 410);
    // A page of an earlier server means another picture by that number.
    let instance = get(address, "/about").json()["instance"].as_u64().unwrap();
    let of = |instance: u64| ask(address, "echo", json!({ "picture": 0, "instance": instance }));
    assert_eq!((of(instance).status, of(instance - 256).status), (200, 409));
}

#[test]
fn uploads_are_kept_and_what_is_no_picture_or_too_large_is_refused_by_name() {
    let address = start(Vec::new());
    let kept = upload(address, "caf%C3%A9.png", &png(40, 20)).json();
    assert_eq!(kept["name"], "café.png");
    let size = ask(address, "read", json!({ "picture": kept["id"] })).json();
    assert_eq!(size, png(40, 20).len());

    let text = upload(address, "notes.jpg", b"to do: buy milk");
    assert_eq!(text.status, 422);
    assert_eq!(text.error(), "notes.jpg: not a JPEG, PNG, WebP, BMP, TIFF or .npy file");
    assert!(upload(address, "a.jpg", b"").error().contains("the file is empty"));
    // The header of 200 megapixels, and nothing behind it.
    let mut huge = png(4, 4);
    huge[16..24].copy_from_slice(&[0, 0, 0x4e, 0x20, 0, 0, 0x27, 0x10]);
    let sum = chunk_sum(&huge[12..29]);
    huge[29..33].copy_from_slice(&sum);
    let refused = upload(address, "huge.png", &huge);
    assert_eq!(refused.status, 422);
    let wanted = "huge.png has 20000×10000 pixels, but at most 2 megapixels are taken; \
                  --max-megapixels allows more";
    assert_eq!(refused.error(), wanted);
    let long = upload(address, "long.png", &vec![0; 1_000_001]);
    assert_eq!(long.status, 413);
    assert_eq!(long.error(), "the file is longer than 1 MB; --max-upload allows more");

    // Those that were kept longest go first, and say so.
    for _ in 0..32 {
        assert_eq!(upload(address, "a.png", &png(2, 2)).status, 200);
    }
    assert_eq!(ask(address, "read", json!({ "picture": kept["id"] })).status, 410);
}

/// PNG's check sum of a chunk's type and data.
fn chunk_sum(bytes: &[u8]) -> [u8; 4] {
    let mut sum = u32::MAX;
    for &byte in bytes {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
        }
    }
    (!sum).to_be_bytes()
}

#[test]
fn other_sites_pages_are_refused() {
    let address = start(Vec::new());
    let as_host = |host: &str| {
        let text = format!("GET /about HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        send(address, text.as_bytes()).status
    };
    assert_eq!(as_host("evil.example"), 403);
    assert_eq!(as_host("proxy.example"), 200);
    assert_eq!(as_host("localhost:1"), 200);
    let from = |origin: &str| {
        request(address, "POST /ask/echo", &format!("origin: {origin}\r\n"), b"{}").status
    };
    assert_eq!(from("http://evil.example"), 403);
    assert_eq!(from("null"), 403);
    assert_eq!(from(&format!("http://{address}")), 200);
    // A refusal is as guarded as an answer.
    let refused = request(address, "POST /ask/echo", "origin: null\r\n", b"{}");
    assert!(refused.head.contains("content-security-policy"), "{}", refused.head);
}

#[test]
fn slow_and_vanished_clients_stop_nobody() {
    let address = start(Vec::new());
    // Ten that send half a request, and ten that send half a picture.
    let halves: Vec<TcpStream> = (0..20)
        .map(|at| {
            let mut stream = TcpStream::connect(address).unwrap();
            let head: &[u8] = if at % 2 == 0 {
                b"GET / HT"
            } else {
                b"POST /pictures HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000\r\n\r\nabc"
            };
            stream.write_all(head).unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    assert_eq!(ask(address, "echo", json!({})).status, 200);
    assert!(began.elapsed() < Duration::from_secs(5));

    // Ten that ask for what takes time, and go away: nobody waits for their answers.
    for _ in 0..10 {
        let mut stream = TcpStream::connect(address).unwrap();
        let text = b"POST /ask/slow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(text).unwrap();
    }
    let began = Instant::now();
    assert_eq!(ask(address, "slow", json!({})).json(), "done");
    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
    drop(halves);
}

#[test]
fn questions_wait_for_each_other_and_the_queue_is_told() {
    let address = start(Vec::new());
    let asking: Vec<_> =
        (0..3).map(|_| thread::spawn(move || ask(address, "slow", json!({})).json())).collect();
    thread::sleep(Duration::from_millis(200));
    let waiting = get(address, "/queue").json()["waiting"].as_u64().unwrap();
    assert_eq!(waiting, 3);
    for answer in asking {
        assert_eq!(answer.join().unwrap(), "done");
    }
    let wrong = ask(address, "nothing", json!({}));
    assert_eq!((wrong.status, wrong.error()), (422, "there is no question \"nothing\"".to_owned()));
    let text = request(address, "POST /ask/echo", "", b"no json");
    assert_eq!(text.status, 400);
}

#[test]
fn a_port_in_use_a_folder_without_pictures_and_an_odd_frame_are_refused() {
    let address = start(Vec::new());
    let taken = ServeFlags { port: address.port(), ..flags(Vec::new()) };
    let refused = format!("{:#}", Server::bind(&taken, PAGE).unwrap_err());
    assert_eq!(refused, format!("port {} is in use; --port 0 takes a free one", address.port()));

    let empty = tempfile::tempdir().unwrap();
    let none = Server::bind(&flags(vec![empty.path().to_owned()]), PAGE).unwrap_err();
    assert!(none.to_string().contains("holds no images"), "{none}");
    let gone = Server::bind(&flags(vec![Path::new("nowhere").to_owned()]), PAGE).unwrap_err();
    assert!(gone.to_string().starts_with("nowhere is not there"), "{gone}");

    let frame = vec!["https://a.example; script-src *".to_owned()];
    let refused = Server::bind(&ServeFlags { allow_frame: frame, ..flags(Vec::new()) }, PAGE);
    assert!(refused.unwrap_err().to_string().starts_with("allow-frame is "));
}
