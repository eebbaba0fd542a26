//! From a location to the store it lies in.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
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
    .map(|(key, time)| (key, format!("{} milliseconds", time.as_millis().max(1))));
    // Sets what the environment doesn't, and then what takes its place.
    macro_rules! configured {
        ($builder:ty, $key:ty, $prefix:literal) => {{
            let mut builder = <$builder>::from_env();
            for (key, time) in &times {
                let variable = format!("{}_{}", $prefix, key.as_ref().to_ascii_uppercase());
                if std::env::var_os(variable).is_none() {
                    builder = builder.with_config(<$key>::Client(*key), time);
                }
            }
            for (name, value) in &settings.variables {
                if let Ok(key) = name.to_ascii_lowercase().parse::<$key>() {
                    builder = builder.with_config(key, value);
                }
            }
            builder.with_url(url).with_retry(once()).with_http_connector(watching())
        }};
    }
    let (objects, parts): (Arc<dyn ObjectStore>, Option<Arc<dyn MultipartStore>>) = match at
        .scheme()
    {
        Scheme::S3 => {
            let builder = configured!(AmazonS3Builder, AmazonS3ConfigKey, "AWS");
            let store = Arc::new(builder.build().map_err(unusable)?);
            (store.clone(), Some(store))
        }
        Scheme::Gcs => {
            let builder = configured!(GoogleCloudStorageBuilder, GoogleConfigKey, "GOOGLE");
            let store = Arc::new(builder.build().map_err(unusable)?);
            (store.clone(), Some(store))
        }
        Scheme::Azure => {
            let builder = configured!(MicrosoftAzureBuilder, AzureConfigKey, "AZURE");
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
