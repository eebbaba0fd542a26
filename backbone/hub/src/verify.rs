//! Whether a file is the one that the hub announced.

use std::fs::File;
use std::io::{self, Read, Seek};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

const CHUNK: usize = 1 << 20;

/// Whether the bytes of `file` have the hash that is in its ETag: the SHA-256 of large files, and
/// git's SHA-1 of small ones, with the length before them. Servers of another kind have ETags
/// that are no hashes: nothing is known then.
pub(crate) fn matches(file: &mut File, etag: &str) -> io::Result<bool> {
    let is_hex = etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut hash = match etag.len() {
        64 if is_hex => Context::new(&SHA256),
        40 if is_hex => {
            let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
            hash.update(format!("blob {}\0", file.metadata()?.len()).as_bytes());
            hash
        }
        _ => return Ok(true),
    };
    file.rewind()?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    let hash: String = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(hash.eq_ignore_ascii_case(etag))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_of_sha256sum() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello\n").unwrap();
        // `printf 'hello\n' | git hash-object --stdin`, `| sha256sum`
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for (etag, fits) in [(git, true), (sha, true), ("an-etag", true)] {
            assert_eq!(matches(&mut file, etag).unwrap(), fits, "{etag}");
            assert_eq!(matches(&mut file, &etag.replace('0', "1")).unwrap(), !etag.contains('0'));
        }
    }
}
