//! The assertion that a client shows instead of a secret (RFC 7523, 2.2), from a file that the platform renews.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::cdf::error::{Error, Kind};
use crate::cdf::small_file;

/// The only type of assertion there is for clients.
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Bytes of the longest file.
const LONGEST: usize = 64 << 10;

/// Reads the file as it is now. That is done on a thread that may wait for a disk.
///
/// # Errors
/// `NotAuthenticated`, with nothing of the file's content.
pub async fn read(path: PathBuf) -> Result<SecretString, Error> {
    match tokio::task::spawn_blocking(move || read_now(&path)).await {
        Ok(read) => read.map_err(|why| {
            let what = format!("cannot use the file that client_assertion_file of the user mapping names: {why}");
            Error::new(Kind::NotAuthenticated, what).hint(
                "It has to hold one assertion, and nothing else, and the operating system's user of the PostgreSQL server has to be \
                 allowed to read it.",
            )
        }),
        Err(_) => Err(Error::internal("reading the client's assertion has ended early")),
    }
}

fn read_now(path: &Path) -> Result<SecretString, String> {
    let (content, _) = small_file::read(path, LONGEST)?;
    let text = content.trim_ascii();
    if text.is_empty() {
        return Err("it is empty".into());
    }
    // As a signed JSON Web Token is written.
    let part = |part: &[u8]| {
        !part.is_empty() && part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(byte))
    };
    if text.split(|byte| *byte == b'.').count() != 3 || !text.split(|byte| *byte == b'.').all(part) {
        return Err("it holds no signed JSON Web Token".into());
    }
    let text = std::str::from_utf8(text).map_err(|_| "it is no text".to_owned())?;
    Ok(SecretString::from(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::cdf::http::testing::block_on;
    use crate::cdf::small_file::tests::TestFile;

    #[test]
    fn only_one_token_is_an_assertion() {
        let read = |content: &[u8]| {
            let file = TestFile::with(content);
            block_on(read(file.0.clone())).map(|assertion| assertion.expose_secret().to_owned())
        };
        assert_eq!(read(b" ey-J_.e30.c2ln\n").unwrap(), "ey-J_.e30.c2ln");
        for content in [
            &b""[..],
            b" \n",
            b"geheim",
            b"geheim.a",
            b"geheim.a.b.c",
            b"geheim..b",
            b"geheim.a.b geheim.a.b",
            b"geheim\n.a.b",
            b"geheim.\xff.b",
            &b"geheim.".repeat(10_000),
        ] {
            let error = read(content).unwrap_err();
            assert_eq!(error.kind, Kind::NotAuthenticated);
            let shown = format!("{error:?}");
            assert!(!shown.contains("geheim") && shown.contains("client_assertion_file"), "{shown}");
        }
        let error = block_on(super::read("/nowhere/token".into())).unwrap_err();
        assert!(error.message.ends_with("No such file or directory"), "{error}");
    }
}
