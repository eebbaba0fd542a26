//! The S3 server behind the proxy.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::Builder;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::dto::{PutObjectInput, StreamingBlob};
use s3s::service::S3ServiceBuilder;
use s3s::{Body, S3, S3Request, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::runtime::Runtime;

pub(crate) const ACCESS_KEY: &str = "test-access-key";
pub(crate) const SECRET_KEY: &str = "test-secret-key";

/// Everybody reads; who writes or lists signs.
struct PublicReads;

#[async_trait::async_trait]
impl S3Access for PublicReads {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let reads = ["GetObject", "HeadObject"].contains(&context.s3_op().name());
        match context.credentials() {
            None if !reads => Err(s3_error!(AccessDenied, "Signature is required")),
            _ => Ok(()),
        }
    }
}

/// A running server; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Store {
    runtime: Option<Runtime>,
    files: FileSystem,
    pub(crate) address: SocketAddr,
}

impl Store {
    /// Starts it on a free port; buckets are the folders of `root`.
    pub(crate) fn start(root: &Path) -> io::Result<Self> {
        let open = || FileSystem::new(root).map_err(|error| io::Error::other(format!("{error:?}")));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let mut builder = S3ServiceBuilder::new(open()?);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        builder.set_access(PublicReads);
        let service = builder.build();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let server = Builder::new(hyper_util::rt::TokioExecutor::new());
                    // Clients break connections off as they like.
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Ok(Store { runtime: Some(runtime), files: open()?, address })
    }

    /// Puts an object, with the ETag that a client's would have.
    pub(crate) fn put(&self, bucket: &str, key: &str, bytes: Vec<u8>) -> io::Result<()> {
        let input = PutObjectInput {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            content_length: i64::try_from(bytes.len()).ok(),
            body: Some(StreamingBlob::from(Body::from(bytes))),
            ..Default::default()
        };
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let put = self.files.put_object(request(input));
        runtime.block_on(put).map(|_| ()).map_err(|error| io::Error::other(format!("{error:?}")))
    }
}

/// As if it had come over HTTP.
fn request<T>(input: T) -> S3Request<T> {
    S3Request {
        input,
        method: Default::default(),
        uri: Default::default(),
        headers: Default::default(),
        extensions: Default::default(),
        credentials: None,
        region: None,
        service: None,
        trailing_headers: None,
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Connections that clients keep open are not waited for.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}
