//! A CDF project, and what is known of it while it is used.

use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use secrecy::SecretString;
use url::Url;

use super::credentials::Credentials;
use super::link::Link;
use super::route::Route;
use super::text::host;
use super::token_cache::TokenCache;
use super::url_path::segment;
use crate::cdf::error::{Error, Kind, RequestError};

/// The current token of one connection.
pub(super) type Tokens = TokenCache<SecretString, RequestError>;

/// A CDF project with the credentials to use it, and their current token.
#[derive(Debug)]
pub struct Connection {
    /// As in `https://westeurope-1.cognitedata.com`. User name, password, query and fragment are not used.
    pub base_url: Url,
    pub project: String,
    pub credentials: Credentials,
    pub route: Route,
    pub(super) tokens: Tokens,
    pub(super) link: Arc<Link>,
    /// Where it leads to, written in the same way for all that lead there: scheme, host, port and path.
    place: (String, String),
    /// Some request to the project was answered with success: base_url and project lead to CDF.
    pub(super) reached: AtomicBool,
}

impl Connection {
    /// By the system's own way.
    pub fn new(base_url: Url, project: String, credentials: Credentials) -> Self {
        // Of an origin the host is in lower case, and the port named only if it is not the usual one.
        let origin = base_url.origin().ascii_serialization();
        let place = (origin, base_url.path().trim_end_matches('/').to_owned());
        let (tokens, link) = (Tokens::new(), Link::new());
        let (route, reached) = (Route::default(), AtomicBool::new(false));
        Connection { base_url, project, credentials, route, tokens, link, place, reached }
    }

    /// The same by another way.
    pub fn by(self, route: Route) -> Self {
        Connection { route, ..self }
    }

    /// Whether both reach the same project of the same CDF, whatever their credentials are.
    pub fn reaches_same_as(&self, other: &Connection) -> bool {
        std::ptr::eq(self, other) || self.project == other.project && self.place == other.place
    }

    /// Returns the URL of a path below the base URL. The path is percent-encoded and may end with a query.
    pub(super) fn url(&self, path: &str) -> Result<Url, Error> {
        let mut base = self.base_url.clone();
        // These fail only for a URL without a host, and such a URL is refused below.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        base.set_query(None);
        base.set_fragment(None);
        let text = format!("{}{path}", base.as_str().trim_end_matches('/'));
        let unusable =
            |why: String| Error::new(Kind::InvalidOption, format!("the base_url cannot be used: {why}"));
        let url = Url::parse(&text).map_err(|error| unusable(error.to_string()))?;
        if url.host_str().is_none() {
            return Err(unusable("it names no host".into()));
        }
        // A URL cannot hold the segments `.` and `..`, not even percent-encoded: it would lead to another place.
        let plain = path.split('?').next().unwrap_or(path);
        if url.path() != format!("{}{plain}", base.path().trim_end_matches('/')) {
            let why = format!(
                "{plain} cannot be requested: URLs take the names \".\" and \"..\" for directions, so that nothing called so \
                 can be reached"
            );
            return Err(Error::new(Kind::InvalidValue, why));
        }
        Ok(url)
    }

    pub(super) fn project_url(&self, path: &str) -> Result<Url, Error> {
        self.url(&format!("/api/v1/projects/{}{path}", segment(&self.project)))
    }

    /// How errors name the server.
    pub(super) fn name(&self) -> String {
        format!("CDF at {}", host(&self.base_url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdf::http::credentials::CdfSession;
    use crate::cdf::http::testing::{reply, serve};

    #[test]
    fn a_url_that_is_written_in_another_way_leads_to_the_same_project() {
        let connection = |url: &str, project: &str, secret: &str| {
            let session = CdfSession { id: 1, key: secret.to_owned().into() };
            let credentials = Credentials::Session(session);
            Connection::new(url.parse().unwrap(), project.into(), credentials)
        };
        let one = connection("https://cdf.example.com", "p", "a");
        for url in ["https://CDF.Example.com/", "HTTPS://cdf.example.com:443", "https://cdf.example.com//"] {
            assert!(one.reaches_same_as(&connection(url, "p", "b")), "{url}");
        }
        for (url, project) in [
            ("https://cdf.example.com", "q"),
            ("https://cdf.example.com:8443", "p"),
            ("http://cdf.example.com", "p"),
            ("https://cdf.example.com/behind", "p"),
            ("https://other.example.com", "p"),
        ] {
            assert!(!one.reaches_same_as(&connection(url, project, "a")), "{url} {project}");
        }
    }

    #[test]
    fn addresses_are_composed_and_never_lead_elsewhere() {
        let server = serve(vec![reply(200, "")]);
        let mut connection = server.connection();
        connection.base_url = "https://u:p@host.example:8443/prefix/?q#f".parse().unwrap();
        connection.project = "a b/c".into();
        let url = |path: &str| connection.project_url(path).map(|url| url.to_string());
        let prefix = "https://host.example:8443/prefix/api/v1/projects/a%20b%2Fc";
        assert_eq!(url("/x%2Fy?a=b%2F/..").unwrap(), format!("{prefix}/x%2Fy?a=b%2F/.."));
        for path in [
            "/raw/dbs/../tables",
            "/raw/dbs/%2E%2e/tables",
            "/raw/dbs/./tables",
            "/rows/.",
            "/rows/..",
            "/rows/%2e",
        ] {
            assert_eq!(url(path).unwrap_err().kind, Kind::InvalidValue, "{path}");
        }
        connection.base_url = "mailto:someone".parse().unwrap();
        assert_eq!(connection.project_url("/x").unwrap_err().kind, Kind::InvalidOption);
    }
}
