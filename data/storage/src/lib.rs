//! Objects in S3, Google Cloud Storage, Azure and on web servers, for code that blocks.
//!
//! A [`Location`] names an object (`s3://bucket/set/shard-000.tar`), a [`Storage`] reads, lists and
//! writes them. Protocols and signatures are those of Apache Arrow's object_store; credentials,
//! endpoint and region come from the environment variables it reads (`AWS_ACCESS_KEY_ID`,
//! `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`, `AWS_REGION`, `GOOGLE_APPLICATION_CREDENTIALS`,
//! `AZURE_STORAGE_ACCOUNT_NAME`, …).
//!
//! What may go away by itself (lost connections, bodies that break off or are too short, 429, 5xx)
//! is tried again with growing pauses, no sooner than the server asks for and no longer than
//! [`Settings::limit`]. An object that was looked at once ([`Storage::head`]) is read as that or
//! not at all: one that has changed since is an [`Error::Changed`].

mod cache;
mod connect;
mod error;
mod index;
mod location;
mod pending;
mod place;
mod read;
mod reader;
mod retry;
mod settings;
mod storage;
mod troubles;
mod watch;
mod write;

pub use error::{Error, Result};
pub use index::{IndexedMember, ShardIndex};
pub use location::{Location, Scheme};
pub use pending::Pending;
pub use read::Object;
pub use reader::Reader;
pub use settings::Settings;
pub use storage::Storage;

use troubles::Troubles;

pub use bytes::Bytes;
