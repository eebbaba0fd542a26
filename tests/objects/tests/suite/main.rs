//! The server keeps its promises, and the proxy spoils what it is told to.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use test_objects::{Fault, Objects, Rule};

/// A request without a signature on a connection of its own: head and body, or what broke it off.
fn ask(
    objects: &Objects,
    method: &str,
    target: &str,
    headers: &str,
) -> std::io::Result<(String, Vec<u8>)> {
    let address = objects.endpoint().replace("http://", "");
    let mut stream = TcpStream::connect(&address)?;
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let body = bytes.split_off(end + 4);
    Ok((String::from_utf8_lossy(&bytes).to_ascii_lowercase(), body))
}

fn get(objects: &Objects, headers: &str) -> std::io::Result<(String, Vec<u8>)> {
    ask(objects, "GET", "/bucket/a/b.bin", headers)
}

fn etag(head: &str) -> &str {
    head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap()
}

fn served() -> (Objects, Vec<u8>) {
    let objects = Objects::start();
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    objects.put("bucket", "a/b.bin", bytes.clone());
    (objects, bytes)
}

#[test]
fn objects_are_read_whole_in_ranges_and_under_conditions() {
    let (objects, bytes) = served();
    let (head, body) = get(&objects, "").unwrap();
    assert!(head.starts_with("http/1.1 200") && body == bytes, "{head}");
    let (head, body) = get(&objects, "range: bytes=10-19\r\n").unwrap();
    assert!(head.starts_with("http/1.1 206") && head.contains("bytes 10-19/100000"), "{head}");
    assert_eq!(body, bytes[10..20]);
    let first = etag(&head).to_owned();
    let (head, body) = ask(&objects, "HEAD", "/bucket/a/b.bin", "").unwrap();
    assert!(head.contains("content-length: 100000") && body.is_empty() && etag(&head) == first);

    let (head, _) = get(&objects, &format!("if-none-match: {first}\r\n")).unwrap();
    assert!(head.starts_with("http/1.1 304"), "{head}");
    objects.put("bucket", "a/b.bin", "another");
    let (head, _) = get(&objects, &format!("if-match: {first}\r\n")).unwrap();
    assert!(head.starts_with("http/1.1 412"), "{head}");
    let (head, body) = get(&objects, "").unwrap();
    assert!(etag(&head) != first && body == b"another");
    let (head, _) = ask(&objects, "GET", "/bucket/none", "").unwrap();
    assert!(head.starts_with("http/1.1 404"), "{head}");
    let (head, _) = ask(&objects, "PUT", "/bucket/new", "content-length: 0\r\n").unwrap();
    assert!(head.starts_with("http/1.1 403"), "who writes signs: {head}");
    assert_eq!(objects.keys("bucket"), ["a/b.bin"]);
}

#[test]
fn answers_are_spoilt_as_the_plan_says() {
    let (objects, bytes) = served();
    let one = |fault| {
        objects.fail(Rule::get("b.bin"), fault);
        get(&objects, "range: bytes=0-999\r\n")
    };
    let (head, _) = one(Fault::slow_down(Some(7))).unwrap();
    assert!(head.starts_with("http/1.1 503") && head.contains("retry-after: 7"), "{head}");
    let reset = one(Fault::Reset(10)).unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(one(Fault::Cut(10)).unwrap().1, bytes[..10]);
    let (head, body) = one(Fault::Shorter(1)).unwrap();
    assert!(head.contains("content-length: 999") && body.len() == 999, "{head}");
    let (head, body) = one(Fault::Longer(1)).unwrap();
    assert!(head.contains("content-length: 1001") && body.len() == 1001, "{head}");
    let (_, body) = one(Fault::WrongByte).unwrap();
    assert!(body[..999] == bytes[..999] && body[999] != bytes[999]);
    let (head, body) = one(Fault::NoRange).unwrap();
    assert!(head.starts_with("http/1.1 200") && body == bytes, "{head}");
    assert!(one(Fault::AnswerLost).is_err());
    let statuses: Vec<u16> = objects.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [503, 206, 206, 206, 206, 206, 200, 0]);

    let begun = Instant::now();
    let pause = Duration::from_millis(50);
    assert_eq!(one(Fault::Stall(10, pause)).unwrap().1, bytes[..1000]);
    assert!(begun.elapsed() >= pause);
    objects.delay(pause);
    let begun = Instant::now();
    get(&objects, "").unwrap();
    assert!(begun.elapsed() >= pause);
}

#[test]
fn a_rule_meets_as_many_requests_as_it_says() {
    let (objects, _) = served();
    objects.fail(Rule::get("b.bin").after(1).times(2), Fault::denied());
    objects.fail(Rule::head(""), Fault::expired());
    let status = |method| -> u16 {
        let (head, _) = ask(&objects, method, "/bucket/a/b.bin", "").unwrap();
        head.split(' ').nth(1).unwrap().parse().unwrap()
    };
    assert_eq!(
        ["GET", "HEAD", "GET", "GET", "HEAD", "GET"].map(status),
        [200, 400, 403, 403, 200, 200]
    );
    objects.fail(Rule::any("").always(), Fault::too_many(None));
    assert_eq!(["GET", "HEAD"].map(status), [429, 429]);
    objects.recover();
    assert_eq!(status("GET"), 200);
}
