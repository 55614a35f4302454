//! Credentials and the tokens that they buy (OAuth 2.0 client credentials).

use std::fmt;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use super::client::{host, Call, Client, Limits};
use super::error::{Error, RequestError};

/// A token is renewed this long before it expires, or at half its life if that is later.
const MARGIN: Duration = Duration::from_secs(60);

/// How long a token counts as valid when the identity provider does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// No token is used for longer, whatever the identity provider says.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

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

/// The current token of one connection. Of parallel requests one renews it, and the others wait for that.
#[derive(Default)]
pub struct TokenCache {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// When and how the last renewal failed: those that waited for it fail with it instead of each trying again.
    failure: Option<(Instant, RequestError)>,
}

struct Token {
    secret: SecretString,
    renew_at: Instant,
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").finish_non_exhaustive()
    }
}

impl TokenCache {
    pub fn new() -> Self {
        Self::default()
    }

    /// The current token, or a new one.
    ///
    /// # Errors
    /// `NotAuthenticated` if the identity provider refuses the credentials or does not answer with a token;
    /// otherwise as [`Client::send`], about the identity provider.
    pub async fn get(
        &self,
        client: &Client,
        credentials: &Credentials,
        limits: &Limits,
    ) -> Result<SecretString, RequestError> {
        let call = Call::to_identity_provider(credentials, limits);
        let since = Instant::now();
        let Ok(mut state) = tokio::time::timeout_at(limits.deadline.into(), self.state.lock()).await else {
            return Err(call.deadline_passed().into());
        };
        if let Some((failed_at, failure)) = &state.failure {
            if *failed_at >= since {
                return Err(failure.clone());
            }
        }
        match &state.token {
            Some(token) if Instant::now() < token.renew_at => return Ok(token.secret.clone()),
            _ => state.token = None,
        }
        match request_token(client, credentials, &call).await {
            Ok(token) => {
                let secret = token.secret.clone();
                *state = State { token: Some(token), failure: None };
                Ok(secret)
            }
            Err(error) => {
                state.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Forgets the token that CDF has refused, unless another request has already renewed it.
    pub async fn invalidate(&self, used_token: &SecretString) {
        let mut state = self.state.lock().await;
        if matches!(&state.token, Some(token) if token.secret.expose_secret() == used_token.expose_secret()) {
            state.token = None;
        }
    }
}

/// Characters of the longest token. No server takes headers of that size.
const LONGEST_TOKEN: usize = 64 << 10;

/// What an identity provider answers; lifetimes come as number, as text, or not at all.
#[derive(Deserialize)]
struct TokenAnswer {
    token_type: Option<Value>,
    access_token: String,
    expires_in: Option<Value>,
}

/// The token of an answer, and how long it is of use. What no request could carry is none: kept, it would fail every
/// request until it expires.
///
/// # Errors
/// What is wrong with the answer, in words that hold nothing of it.
pub(super) fn read(body: &[u8]) -> Result<(SecretString, Duration), String> {
    // serde_json's own text may hold some of the answer.
    let answer: Value = serde_json::from_slice(body).map_err(|_| "it is not JSON".to_owned())?;
    if !answer.is_object() {
        return Err("it is no JSON object".into());
    }
    let answer = TokenAnswer::deserialize(answer).map_err(|_| "it holds no access_token".to_owned())?;
    let bearer = |kind: &Value| kind.as_str().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("bearer"));
    if !answer.token_type.as_ref().is_none_or(bearer) {
        return Err("its token_type is none that CDF takes".into());
    }
    let token = &answer.access_token;
    if token.is_empty() {
        return Err("its access_token is empty".into());
    }
    if token.len() > LONGEST_TOKEN {
        return Err(format!("its access_token has more than {LONGEST_TOKEN} characters"));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its access_token holds characters that no request can carry".into());
    }
    Ok((answer.access_token.into(), useful_life(answer.expires_in.as_ref())))
}

async fn request_token(
    client: &Client,
    credentials: &Credentials,
    call: &Call<'_>,
) -> Result<Token, RequestError> {
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
        let request = client.http().post(credentials.token_url.clone()).form(&form);
        std::future::ready(Ok((request.header(reqwest::header::ACCEPT, "application/json"), None)))
    };
    let answer = client.exchange(call, prepare).await?;
    // The exchange ends only with an answer that was read so.
    let (secret, life) = read(&answer.body).map_err(Error::internal)?;
    Ok(Token { secret, renew_at: asked_at + life })
}

/// How long a token is used, given the `expires_in` of its answer.
fn useful_life(expires_in: Option<&Value>) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let life = match seconds {
        Some(seconds) => {
            Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LONGEST_LIFE).min(LONGEST_LIFE)
        }
        None => DEFAULT_LIFE,
    };
    life.saturating_sub(MARGIN).max(life / 2)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
    fn lifetimes_are_read_tolerantly_and_end_early() {
        let seconds = |value: serde_json::Value| useful_life(Some(&value)).as_secs();
        assert_eq!(seconds(json!(3600)), 3540);
        assert_eq!(seconds(json!("3600")), 3540);
        assert_eq!(seconds(json!(3600.5)), 3540);
        assert_eq!(seconds(json!(20)), 10);
        assert_eq!(seconds(json!(0)), 0);
        assert_eq!(seconds(json!(-5)), 0);
        assert_eq!(seconds(json!(1e300)), LONGEST_LIFE.as_secs() - 60);
        assert_eq!(seconds(json!("soon")), 240);
        assert_eq!(seconds(json!(null)), 240);
        assert_eq!(useful_life(None).as_secs(), 240);
    }

    #[test]
    fn only_what_a_request_can_carry_is_a_token() {
        let read = |answer: Value| super::read(answer.to_string().as_bytes()).map(|(_, life)| life.as_secs());
        assert_eq!(read(json!({ "access_token": "a.b~c/d+e=", "expires_in": "3600" })), Ok(3540));
        assert_eq!(read(json!({ "access_token": "a", "token_type": "bEaReR", "expires_in": true })), Ok(240));
        assert_eq!(read(json!({ "access_token": "a", "token_type": null })), Ok(240));
        for token in ["", "a\nb", "a\r\nx: y", "a\0", "a b", "\u{7f}", "t\u{f6}ken", " a", "a\t"] {
            let why = read(json!({ "access_token": token })).unwrap_err();
            assert!(why.contains("access_token"), "{why}");
        }
        for answer in [
            json!({}),
            json!(["a"]),
            json!({ "access_token": null }),
            json!({ "access_token": 1 }),
            json!({ "access_token": ["a"] }),
            json!({ "access_token": "x".repeat(LONGEST_TOKEN + 1) }),
            json!({ "access_token": "a", "token_type": "mac" }),
            json!({ "access_token": "a", "token_type": 1 }),
        ] {
            assert!(read(answer.clone()).is_err(), "{answer}");
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
