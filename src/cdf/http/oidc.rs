//! Credentials and the tokens that they buy (OAuth 2.0 client credentials).

use std::fmt;
use std::time::Instant;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::call::{Call, Peer};
use super::exchange::Transport;
use super::owed::Owed;
use super::request::Limits;
use super::retry::Resend;
use super::text::host;
use super::token;
use super::token_cache::{Temporary, TokenCache};
use crate::cdf::error::{Error, RequestError};

/// A client that an identity provider knows.
#[derive(Clone)]
pub struct Credentials {
    /// Where tokens are asked for.
    pub token_url: Url,
    pub client_id: String,
    pub client_secret: SecretString,
    /// Scopes separated by spaces.
    pub scope: Option<String>,
    /// For identity providers that want one besides or instead of a scope.
    pub audience: Option<String>,
}

/// Shows neither the secret nor what the URL may hold besides host and path.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("token_url", &format_args!("{}{}", host(&self.token_url), self.token_url.path()))
            .field("client_id", &self.client_id)
            .field("scope", &self.scope)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.token_url == other.token_url
            && self.client_id == other.client_id
            && self.client_secret.expose_secret() == other.client_secret.expose_secret()
            && self.scope == other.scope
            && self.audience == other.audience
    }
}

impl Eq for Credentials {}

/// The current token of one connection.
pub(super) type Tokens = TokenCache<SecretString, RequestError>;

/// The token that requests carry: the current one, or a new one.
///
/// # Errors
/// `NotAuthenticated` if the identity provider refuses the credentials or does not answer with a token;
/// otherwise as [`super::client::Client::send`], about the identity provider.
pub(super) async fn token(
    transport: &Transport,
    credentials: &Credentials,
    tokens: &Tokens,
    limits: &Limits,
) -> Result<SecretString, RequestError> {
    let call = call(credentials, limits);
    match tokens.get(limits.deadline, || request_token(transport, credentials, &call)).await {
        Some(token) => token,
        None => Err(call.deadline_passed().into()),
    }
}

/// Forgets the token that CDF has refused, unless another request has already renewed it.
pub(super) async fn forget(tokens: &Tokens, refused: &SecretString) {
    tokens.forget(|current| current.expose_secret() == refused.expose_secret()).await;
}

fn call<'a>(credentials: &'a Credentials, limits: &'a Limits) -> Call<'a> {
    Call {
        peer: Peer::IdentityProvider,
        name: format!("the identity provider at {}", host(&credentials.token_url)),
        endpoint: "the request for a token".into(),
        resend: Resend::Always,
        owed: Owed::Token,
        writes: false,
        bytes: 0,
        limits,
        client_secret: &credentials.client_secret,
    }
}

async fn request_token(
    transport: &Transport,
    credentials: &Credentials,
    call: &Call<'_>,
) -> Result<Temporary<SecretString>, RequestError> {
    let mut form = vec![
        ("grant_type", "client_credentials"),
        ("client_id", &credentials.client_id),
        ("client_secret", credentials.client_secret.expose_secret()),
    ];
    form.extend(credentials.scope.as_deref().map(|scope| ("scope", scope)));
    form.extend(credentials.audience.as_deref().map(|audience| ("audience", audience)));
    // The life of a token begins when it is issued, which may be as early as this.
    let asked_at = Instant::now();
    let prepare = |_| {
        let request = transport.http().post(credentials.token_url.clone()).form(&form);
        std::future::ready(Ok((request.header(reqwest::header::ACCEPT, "application/json"), None)))
    };
    let answer = transport.exchange(call, prepare).await?;
    // The exchange ends only with an answer that was read so.
    let (secret, life) = token::read(&answer.body).map_err(Error::internal)?;
    Ok(Temporary { value: secret, renew_at: asked_at + life })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(secret: &str) -> Credentials {
        Credentials {
            token_url: "https://user:pw-7@login.example/token?key=k-8".parse().unwrap(),
            client_id: "me".into(),
            client_secret: secret.to_owned().into(),
            scope: Some("s".into()),
            audience: None,
        }
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
    }
}
