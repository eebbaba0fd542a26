//! What is served under which path.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::guard::Guard;
use crate::queue::{Queue, Refused};
use crate::{Page, Pictures, Question};

/// Longest that a request's body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(120);
/// Uploads that may arrive at once; each is held in memory.
const UPLOADS: usize = 16;
/// Longest question, in bytes: a mask of 1024×1024 patches, and no more.
const QUESTION: usize = 2 << 20;
/// Thumbnails that are made at once.
const THUMBNAILS: usize = 2;

/// All that is served.
pub struct Site {
    pub page: Page,
    /// What the app says of itself.
    pub about: Value,
    pub pictures: Arc<Pictures>,
    pub queue: Queue,
    /// Tells a page that it was left open by an earlier server.
    pub instance: u64,
}

struct Shared {
    site: Arc<Site>,
    uploads: AtomicUsize,
    thumbnails: Semaphore,
}

/// All paths, each guarded.
pub fn router(site: Arc<Site>, guard: Arc<Guard>) -> Router {
    let uploads = AtomicUsize::new(0);
    let shared = Arc::new(Shared { site, uploads, thumbnails: Semaphore::new(THUMBNAILS) });
    Router::new()
        .route("/", get(document))
        .route("/page/{name}", get(file))
        .route("/about", get(about))
        .route("/queue", get(waiting))
        .route("/pictures/{id}", get(thumbnail))
        .route("/pictures", post(upload))
        .route("/ask/{name}", post(ask))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "there is no such page") })
        .with_state(shared)
        .layer(from_fn_with_state(guard, guarded))
}

async fn guarded(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let mut response = match guard.check(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(reason) => refuse(StatusCode::FORBIDDEN, reason),
    };
    for (name, value) in guard.headers() {
        response.headers_mut().insert(name, value);
    }
    response
}

fn refuse(status: StatusCode, reason: impl Into<String>) -> Response {
    (status, axum::Json(json!({ "error": reason.into() }))).into_response()
}

fn typed(kind: &'static str, content: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, kind)], content.into()).into_response()
}

async fn document(State(shared): State<Arc<Shared>>) -> Response {
    typed("text/html; charset=utf-8", shared.site.page.document())
}

async fn file(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    match shared.site.page.file(&name) {
        Some((content, kind)) => typed(kind, content),
        None => refuse(StatusCode::NOT_FOUND, format!("there is no {name}")),
    }
}

async fn about(State(shared): State<Arc<Shared>>) -> Response {
    let site = &shared.site;
    let named = |picture: &Arc<crate::Picture>| json!({ "id": picture.id, "name": picture.name });
    let pictures: Vec<Value> = site.pictures.stored().iter().map(named).collect();
    let limits = site.pictures.limits();
    let (upload, pixels) = (limits.upload, limits.pixels);
    axum::Json(json!({
        "app": site.about,
        "pictures": pictures,
        "limits": { "upload": upload, "pixels": pixels },
        "instance": site.instance,
    }))
    .into_response()
}

/// What a page asks for while it waits.
async fn waiting(State(shared): State<Arc<Shared>>) -> Response {
    let site = &shared.site;
    axum::Json(json!({ "waiting": site.queue.unanswered(), "instance": site.instance }))
        .into_response()
}

async fn thumbnail(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> Response {
    let Some(picture) = shared.site.pictures.get(id) else { return gone() };
    let Ok(_turn) = shared.thumbnails.acquire().await else { return gone() };
    match tokio::task::spawn_blocking(move || picture.thumbnail()).await {
        Ok(Ok(jpeg)) => typed("image/jpeg", jpeg),
        Ok(Err(error)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}")),
        Err(_) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "the thumbnail failed by a fault of ours")
        }
    }
}

fn gone() -> Response {
    refuse(StatusCode::GONE, "this picture is no longer here; choose it again")
}

async fn upload(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let _one = match Uploading::begin(&shared.uploads) {
        Some(one) => one,
        None => {
            let reason =
                format!("{UPLOADS} files are being uploaded already; try again in a moment");
            return refuse(StatusCode::SERVICE_UNAVAILABLE, reason);
        }
    };
    let name = name_of(request.headers());
    let limit = shared.site.pictures.limits().upload;
    let bytes = match body(request, limit, "--max-upload allows more").await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    match shared.site.pictures.add(&name, bytes.into()) {
        Ok(picture) => {
            axum::Json(json!({ "id": picture.id, "name": picture.name })).into_response()
        }
        Err(error) => refuse(StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}")),
    }
}

/// One of the uploads that are under way, as long as it lives.
struct Uploading<'a>(&'a AtomicUsize);

impl<'a> Uploading<'a> {
    fn begin(count: &'a AtomicUsize) -> Option<Self> {
        let one = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < UPLOADS).then_some(one)
    }
}

impl Drop for Uploading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The file's name, which the page sends in the letters that headers may have.
fn name_of(headers: &HeaderMap) -> String {
    let encoded = headers.get("x-name").and_then(|name| name.to_str().ok()).unwrap_or("upload");
    let name = percent_decode_str(encoded).decode_utf8_lossy();
    // The name is shown, never opened.
    let plain: String = name.chars().filter(|letter| !letter.is_control()).take(200).collect();
    if plain.is_empty() { "upload".to_owned() } else { plain }
}

/// A request's body of at most `limit` bytes.
async fn body(request: Request, limit: u64, way: &str) -> Result<Bytes, Response> {
    let too_long = || {
        let reason = format!("the file is longer than {} MB; {way}", limit / 1_000_000);
        refuse(StatusCode::PAYLOAD_TOO_LARGE, reason)
    };
    let claimed = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if claimed.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > limit) {
        return Err(too_long());
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    match timeout(ARRIVAL, to_bytes(request.into_body(), limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(too_long()),
        Err(_) => {
            let reason = format!("nothing came for {} seconds", ARRIVAL.as_secs());
            Err(refuse(StatusCode::REQUEST_TIMEOUT, reason))
        }
    }
}

async fn ask(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let site = &shared.site;
    let bytes = match body(request, QUESTION as u64, "no question is that long").await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let body: Value = match serde_json::from_slice(&bytes) {
        Ok(body) => body,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("no JSON: {error}")),
    };
    // Its numbers of pictures are those of another server.
    if body.get("instance").and_then(Value::as_u64).is_some_and(|own| own != site.instance) {
        return refuse(StatusCode::CONFLICT, "The program was started anew.");
    }
    let picture = match body.get("picture").and_then(Value::as_u64) {
        None => None,
        Some(id) => match site.pictures.get(id) {
            None => return gone(),
            found => found,
        },
    };
    match site.queue.ask(Question { name, body, picture }).await {
        Ok(Ok(answer)) => axum::Json(answer).into_response(),
        Ok(Err(reason)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, reason),
        Err(Refused::Full) => {
            let reason = "too many are asking at once; try again in a moment";
            refuse(StatusCode::SERVICE_UNAVAILABLE, reason)
        }
        Err(Refused::Closed) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the program is ending"),
    }
}
