//! Pictures as pages take them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The file `bytes` of type `mime` as a URL that holds it.
pub fn data_url(mime: &str, bytes: &[u8]) -> String {
    format!("data:{mime};base64,{}", STANDARD.encode(bytes))
}
