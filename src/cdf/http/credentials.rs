//! What a connection shows of itself to get its tokens.

use std::fmt;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::text::host;

/// What tokens are got with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// From an identity provider.
    Client(OidcClient),
    /// From CDF itself.
    Session(CdfSession),
}

/// A client that an identity provider knows.
#[derive(Clone, PartialEq, Eq)]
pub struct OidcClient {
    /// Where tokens are asked for.
    pub token_url: Url,
    pub client_id: String,
    pub proof: Proof,
    /// Scopes separated by spaces.
    pub scope: Option<String>,
    /// For identity providers that want one besides or instead of a scope.
    pub audience: Option<String>,
}

/// How a client shows that it is the one that it says.
#[derive(Debug, Clone)]
pub enum Proof {
    Secret(SecretString, TokenAuth),
    /// A file with an assertion, which something else renews (RFC 7523, 2.2).
    AssertionFile(PathBuf),
}

/// Where a token request has the client's secret (RFC 6749, 2.3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenAuth {
    /// In its form.
    #[default]
    Post,
    /// In its header, with the client's id.
    Basic,
}

impl TokenAuth {
    pub const NAMES: &'static [&'static str] = &["post", "basic"];

    pub fn parse(name: &str) -> Option<TokenAuth> {
        match name {
            "post" => Some(TokenAuth::Post),
            "basic" => Some(TokenAuth::Basic),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            TokenAuth::Post => "post",
            TokenAuth::Basic => "basic",
        }
    }
}

/// A session of a project of CDF, which gets tokens with its key.
#[derive(Clone)]
pub struct CdfSession {
    pub id: u64,
    pub key: SecretString,
}

impl Credentials {
    /// What errors must not show.
    pub fn secret(&self) -> Option<&SecretString> {
        match self {
            Credentials::Client(OidcClient { proof: Proof::Secret(secret, _), .. }) => Some(secret),
            Credentials::Client(OidcClient { proof: Proof::AssertionFile(_), .. }) => None,
            Credentials::Session(session) => Some(&session.key),
        }
    }

    /// The client's id, or the session's.
    pub fn id(&self) -> String {
        match self {
            Credentials::Client(client) => client.client_id.clone(),
            Credentials::Session(session) => session.id.to_string(),
        }
    }

    /// Who it is, as errors say it.
    pub fn holder(&self) -> String {
        match self {
            Credentials::Client(client) => format!("client \"{}\"", client.client_id),
            Credentials::Session(session) => format!("session {}", session.id),
        }
    }

    /// What to check of them when they are refused, as the options are called.
    pub fn options(&self) -> &'static str {
        match self {
            Credentials::Client(OidcClient { proof: Proof::Secret(..), .. }) => {
                "token_url, client_id, client_secret, scope and audience"
            }
            Credentials::Client(OidcClient { proof: Proof::AssertionFile(_), .. }) => {
                "token_url, client_id, client_assertion_file, scope and audience, and with whom the identity provider trusts \
                 that the assertion is from"
            }
            Credentials::Session(_) => "session_id, session_key and project",
        }
    }
}

/// Shows no secret, nor what the URL may hold besides host and path.
impl fmt::Debug for OidcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("token_url", &format_args!("{}{}", host(&self.token_url), self.token_url.path()))
            .field("client_id", &self.client_id)
            .field("scope", &self.scope)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CdfSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

impl PartialEq for Proof {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Proof::Secret(one, one_way), Proof::Secret(two, two_way)) => {
                one_way == two_way && one.expose_secret() == two.expose_secret()
            }
            (Proof::AssertionFile(one), Proof::AssertionFile(two)) => one == two,
            _ => false,
        }
    }
}

impl Eq for Proof {}

impl PartialEq for CdfSession {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.key.expose_secret() == other.key.expose_secret()
    }
}

impl Eq for CdfSession {}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(secret: &str) -> Credentials {
        Credentials::Client(OidcClient {
            token_url: "https://user:pw-7@login.example/token?key=k-8".parse().unwrap(),
            client_id: "me".into(),
            proof: Proof::Secret(secret.to_owned().into(), TokenAuth::Post),
            scope: Some("s".into()),
            audience: None,
        })
    }

    #[test]
    fn credentials_compare_by_value_and_never_show_the_secret() {
        assert_eq!(credentials("geheim-9"), credentials("geheim-9"));
        assert_ne!(credentials("geheim-9"), credentials("other"));
        let shown = format!("{:?}", credentials("geheim-9"));
        for secret in ["geheim-9", "pw-7", "k-8"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("login.example") && shown.contains("me"));

        let session = |key: &str| Credentials::Session(CdfSession { id: 7, key: key.to_owned().into() });
        assert_eq!(session("geheim-9"), session("geheim-9"));
        assert_ne!(session("geheim-9"), session("other"));
        assert!(!format!("{:?}", session("geheim-9")).contains("geheim"));
    }

    #[test]
    fn ways_of_telling_a_secret_have_names() {
        for name in TokenAuth::NAMES {
            assert_eq!(TokenAuth::parse(name).unwrap().name(), *name);
        }
        assert_eq!(TokenAuth::parse("Basic"), None);
    }
}
