//! What stands before the server: it passes requests on, and spoils the answers that the plan says.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use crate::http::Head;
use crate::plan::Fault;
use crate::{Request, State, locked};

/// A client that says nothing for so long has gone.
const IDLE: Duration = Duration::from_secs(60);

/// Whether the connection goes on after an answer.
#[derive(PartialEq)]
enum Next {
    Request,
    Close,
}

/// Answers the requests of one connection, until either side ends it.
pub(crate) fn serve(stream: TcpStream, upstream: SocketAddr, state: &State) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut incoming = BufReader::new(stream.try_clone()?);
    while let Some(head) = Head::read(&mut incoming)? {
        let Some(request) = Request::of(head) else { break };
        if request.header("transfer-encoding").is_some() {
            refuse(&mut &stream, 411, "MissingContentLength", None)?;
            break;
        }
        if request.header("expect").is_some() {
            (&stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let (fault, latency) = {
            let mut plan = locked(&state.plan);
            (plan.next(&request), plan.latency)
        };
        let number = {
            let mut log = locked(&state.log);
            log.push(request.clone());
            (log.len() - 1, state.cleared())
        };
        std::thread::sleep(latency);
        let mut body = (&mut incoming).take(request.head().length().unwrap_or(0));
        let outcome = answer(&stream, &request, &mut body, upstream, fault, |status| {
            state.note(number, status);
        });
        if outcome? == Next::Close || request.header("connection") == Some("close") {
            break;
        }
    }
    Ok(())
}

fn answer(
    mut stream: &TcpStream,
    request: &Request,
    body: &mut impl Read,
    upstream: SocketAddr,
    fault: Option<Fault>,
    note: impl Fn(u16),
) -> io::Result<Next> {
    match fault {
        Some(Fault::Refused { status, code, retry_after }) => {
            io::copy(body, &mut io::sink())?;
            note(status);
            refuse(&mut stream, status, code, retry_after)?;
            return Ok(Next::Request);
        }
        Some(Fault::Silence(time)) => {
            std::thread::sleep(time);
            return Ok(Next::Close);
        }
        _ => {}
    }
    let ranged = !matches!(fault, Some(Fault::NoRange));
    let (head, mut answered) = ask(request, body, upstream, ranged)?;
    if matches!(fault, Some(Fault::AnswerLost)) {
        io::copy(&mut answered, &mut io::sink())?;
        return reset(stream);
    }
    // The server carries out no conditions on reading (RFC 9110, 13.1).
    if let Some(status) = unmet(request, &head) {
        note(status);
        match status {
            304 => stream.write_all(&Head::answer(304).with("content-length", 0).bytes())?,
            _ => refuse(&mut stream, status, "PreconditionFailed", None)?,
        }
        return Ok(Next::Request);
    }
    note(head.status());
    let bodiless = request.method == "HEAD" || matches!(head.status(), 204 | 304);
    match (head.length(), bodiless) {
        (_, true) => stream.write_all(&head.bytes())?,
        // In chunks: to be passed on as it is.
        (None, false) => {
            stream.write_all(&head.bytes())?;
            io::copy(&mut answered, &mut stream)?;
            if head.get("transfer-encoding").is_none() {
                return Ok(Next::Close);
            }
        }
        (Some(length), false) => return pass_on(stream, head, length, &mut answered, fault),
    }
    Ok(Next::Request)
}

/// The server's answer: its head, and what its body is read from.
fn ask(
    request: &Request,
    body: &mut impl Read,
    upstream: SocketAddr,
    ranged: bool,
) -> io::Result<(Head, BufReader<TcpStream>)> {
    let mut server = TcpStream::connect(upstream)?;
    let mut head = request.head().clone().without("expect").with("connection", "close");
    if !ranged {
        head = head.without("range");
    }
    server.write_all(&head.bytes())?;
    io::copy(body, &mut server)?;
    let mut answered = BufReader::new(server);
    let head = Head::read(&mut answered)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((head.without("connection"), answered))
}

/// Sends an answer whose body has `length` bytes, or what the fault makes of it.
fn pass_on(
    mut stream: &TcpStream,
    head: Head,
    length: u64,
    body: &mut impl Read,
    fault: Option<Fault>,
) -> io::Result<Next> {
    let sent = |bytes: usize| (bytes as u64).min(length);
    match fault {
        Some(Fault::Reset(bytes)) => {
            stream.write_all(&head.bytes())?;
            io::copy(&mut body.take(sent(bytes)), &mut stream)?;
            // A reset drops what has not arrived yet.
            std::thread::sleep(Duration::from_millis(20));
            reset(stream)
        }
        Some(Fault::Cut(bytes)) => {
            stream.write_all(&head.bytes())?;
            io::copy(&mut body.take(sent(bytes)), &mut stream)?;
            Ok(Next::Close)
        }
        Some(Fault::Shorter(fewer)) => {
            let rest = length.saturating_sub(fewer as u64);
            stream.write_all(&head.with("content-length", rest).bytes())?;
            io::copy(&mut body.take(rest), &mut stream)?;
            Ok(Next::Request)
        }
        Some(Fault::Longer(more)) => {
            stream.write_all(&head.with("content-length", length + more as u64).bytes())?;
            io::copy(body, &mut stream)?;
            stream.write_all(&vec![0; more])?;
            Ok(Next::Request)
        }
        Some(Fault::WrongByte) => {
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes)?;
            bytes.iter_mut().rev().take(1).for_each(|byte| *byte ^= 1);
            stream.write_all(&head.bytes())?;
            stream.write_all(&bytes)?;
            Ok(Next::Request)
        }
        Some(Fault::Stall(bytes, time)) => {
            stream.write_all(&head.bytes())?;
            io::copy(&mut body.take(sent(bytes)), &mut stream)?;
            std::thread::sleep(time);
            io::copy(body, &mut stream)?;
            Ok(Next::Request)
        }
        _ => {
            stream.write_all(&head.bytes())?;
            let copied = io::copy(body, &mut stream)?;
            // What the server broke off is broken off here, too.
            Ok(if copied == length { Next::Request } else { Next::Close })
        }
    }
}

/// The status of a request whose condition the object does not meet.
fn unmet(request: &Request, head: &Head) -> Option<u16> {
    if !matches!(request.method.as_str(), "GET" | "HEAD") || head.status() >= 300 {
        return None;
    }
    let etag = head.get("etag")?;
    let is_in = |list: &str| list.split(',').any(|one| one.trim() == etag || one.trim() == "*");
    if request.header("if-match").is_some_and(|list| !is_in(list)) {
        return Some(412);
    }
    request.header("if-none-match").is_some_and(is_in).then_some(304)
}

fn refuse(
    stream: &mut impl Write,
    status: u16,
    code: &str,
    retry_after: Option<u64>,
) -> io::Result<()> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code>\
         <Message>the plan of a test says so</Message></Error>"
    );
    let mut head = Head::answer(status)
        .with("content-type", "application/xml")
        .with("content-length", body.len());
    if let Some(seconds) = retry_after {
        head = head.with("retry-after", seconds);
    }
    stream.write_all(&head.bytes())?;
    stream.write_all(body.as_bytes())
}

/// Ends the connection as a crash does.
fn reset(stream: &TcpStream) -> io::Result<Next> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    Ok(Next::Close)
}
