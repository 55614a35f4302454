//! The way from here to CDF and to the identity provider: whom it trusts, and which proxy it goes through.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use reqwest::Certificate;
use url::Url;

use crate::cdf::error::{Error, Kind};
use crate::cdf::small_file;

/// Bytes of the longest file of certificates.
const LONGEST: usize = 1 << 20;

/// What a server's options say of the way. By default it is the system's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Route {
    pub ca_file: Option<CaFile>,
    /// Instead of the one that the environment names.
    pub proxy: Option<Url>,
}

/// A file of certificates that are trusted besides the system's. Another version of it is another file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CaFile {
    path: PathBuf,
    /// Device, inode, length, and time of the last change, if it is there.
    version: Option<(u64, u64, u64, i64, i64)>,
}

impl CaFile {
    /// The file as it is now.
    pub fn at(path: PathBuf) -> CaFile {
        let version = std::fs::metadata(&path).ok();
        let version =
            version.map(|file| (file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec()));
        CaFile { path, version }
    }

    /// What is in it.
    ///
    /// # Errors
    /// `InvalidOption`.
    pub fn certificates(&self) -> Result<Vec<Certificate>, Error> {
        let certificates = small_file::read(&self.path, LONGEST).and_then(|(content, _)| {
            let certificates = Certificate::from_pem_bundle(&content)
                .map_err(|_| "it holds something other than certificates in PEM".to_owned())?;
            if certificates.is_empty() {
                Err("it holds no certificate in PEM".to_owned())
            } else {
                Ok(certificates)
            }
        });
        certificates.map_err(|why| {
            let path = self.path.display();
            let what = format!("cannot use the file \"{path}\" that ca_file of the foreign server names: {why}");
            Error::new(Kind::InvalidOption, what).hint(
                "It has to hold certificates in PEM, and the operating system's user of the PostgreSQL server has to be allowed to \
                 read it.",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdf::small_file::tests::TestFile;

    #[test]
    fn what_holds_no_certificate_is_refused() {
        for content in [
            &b""[..],
            b"no PEM",
            b"-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            let file = TestFile::with(content);
            let error = CaFile::at(file.0.clone()).certificates().unwrap_err();
            assert_eq!(error.kind, Kind::InvalidOption);
        }
        let error = CaFile::at("/nowhere/ca.pem".into()).certificates().unwrap_err();
        assert!(error.message.contains("/nowhere/ca.pem"), "{error}");
    }

    #[test]
    fn a_changed_file_is_another_one() {
        let file = TestFile::with(b"a");
        let at = || CaFile::at(file.0.clone());
        let before = at();
        assert_eq!(before, at());
        std::fs::write(&file.0, b"ab").unwrap();
        assert_ne!(before, at());
    }
}
