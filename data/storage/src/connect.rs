//! From a location to the store it lies in.

use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::ClientConfigKey;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::multipart::MultipartStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use crate::watch::{Gate, Watching, chain};
use crate::{Error, Location, Result, Scheme, Settings};

/// A bucket, container or web server.
#[derive(Clone)]
pub(crate) struct Store {
    pub objects: Arc<dyn ObjectStore>,
    /// How large objects are written; none where they can't be.
    pub parts: Option<Arc<dyn MultipartStore>>,
    pub gate: Gate,
}

/// The store that `at` lies in, with what the usual environment variables say of credentials,
/// endpoint and region.
pub(crate) fn connect(at: &Location, settings: &Settings) -> Result<Store> {
    let gate = Gate::default();
    let watching = || Watching(gate.clone());
    // Trying again is counted in one place: crate::retry.
    let once =
        || RetryConfig { max_retries: 0, retry_timeout: settings.limit, ..RetryConfig::default() };
    let url = at.store();
    let unusable = |e: object_store::Error| Error::Refused {
        at: at.clone(),
        problem: format!("the store's settings can't be used: {}", chain(&e)),
    };
    let times = [
        (ClientConfigKey::Timeout, settings.timeout),
        (ClientConfigKey::ConnectTimeout, settings.connect_timeout),
    ]
    .map(|(key, time)| (key, format!("{} ms", time.as_millis().max(1))));
    /// Sets what the environment doesn't.
    macro_rules! timed {
        ($builder:expr, $key:path, $prefix:literal) => {
            times.iter().fold($builder, |builder, (key, time)| {
                let variable = format!("{}_{}", $prefix, key.as_ref().to_ascii_uppercase());
                match std::env::var_os(variable) {
                    Some(_) => builder,
                    None => builder.with_config($key(*key), time),
                }
            })
        };
    }
    let (objects, parts): (Arc<dyn ObjectStore>, Option<Arc<dyn MultipartStore>>) = match at
        .scheme()
    {
        Scheme::S3 => {
            let builder = timed!(
                AmazonS3Builder::from_env(),
                object_store::aws::AmazonS3ConfigKey::Client,
                "AWS"
            );
            let builder = builder.with_url(url).with_retry(once()).with_http_connector(watching());
            let store = Arc::new(builder.build().map_err(unusable)?);
            (store.clone(), Some(store))
        }
        Scheme::Gcs => {
            let builder = timed!(
                GoogleCloudStorageBuilder::from_env(),
                object_store::gcp::GoogleConfigKey::Client,
                "GOOGLE"
            );
            let builder = builder.with_url(url).with_retry(once()).with_http_connector(watching());
            let store = Arc::new(builder.build().map_err(unusable)?);
            (store.clone(), Some(store))
        }
        Scheme::Azure => {
            let builder = timed!(
                MicrosoftAzureBuilder::from_env(),
                object_store::azure::AzureConfigKey::Client,
                "AZURE"
            );
            let builder = builder.with_url(url).with_retry(once()).with_http_connector(watching());
            let store = Arc::new(builder.build().map_err(unusable)?);
            (store.clone(), Some(store))
        }
        Scheme::Http => {
            let options = times
                .into_iter()
                .fold(ClientOptions::new(), |options, (key, time)| options.with_config(key, time));
            let builder = HttpBuilder::new()
                .with_url(url)
                .with_client_options(options.with_allow_http(url.starts_with("http:")))
                .with_retry(once())
                .with_http_connector(watching());
            (Arc::new(builder.build().map_err(unusable)?), None)
        }
    };
    Ok(Store { objects, parts, gate })
}
