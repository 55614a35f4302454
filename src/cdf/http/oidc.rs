//! Gets the token of a connection and renews it: from an identity provider (OAuth 2.0 client credentials), or from CDF for a
//! session.

use std::time::Instant;

use base64::prelude::{Engine, BASE64_STANDARD};
use bytes::Bytes;
use reqwest::header::{self, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::assertion;
use super::call::{Peer, ServerCall};
use super::connection::{Connection, Tokens};
use super::credentials::{CdfSession, Credentials, OidcClient, Proof, TokenAuth};
use super::endpoint::Endpoint;
use super::exchange::Transport;
use super::owed::Owed;
use super::request::{encode, Limits, Request, RequestBody};
use super::retry::Resend;
use super::text::host;
use super::token;
use super::token_cache::Temporary;
use crate::cdf::error::{Error, RequestError};

/// Where sessions get their tokens.
const SESSION_TOKENS: Endpoint = Endpoint::post("/sessions/token");

/// The token that requests carry: the current one, or a new one.
///
/// # Errors
/// `NotAuthenticated` if the identity provider, or CDF for a session, refuses the credentials or does not answer with a token;
/// otherwise as [`super::client::Client::send`], about who was asked.
pub(super) async fn token(
    transport: &Transport,
    connection: &Connection,
    limits: &Limits,
) -> Result<SecretString, RequestError> {
    let renew = || renew(transport, connection, limits);
    match connection.tokens.get(limits.deadline, renew).await {
        Some(token) => token,
        None => Err(call(connection, limits, Vec::new()).deadline_passed().into()),
    }
}

/// Forgets the token that CDF has refused, unless another request has already renewed it.
pub(super) async fn forget(tokens: &Tokens, refused: &SecretString) {
    tokens.forget(|current| current.expose_secret() == refused.expose_secret()).await;
}

fn call<'a>(
    connection: &'a Connection,
    limits: &'a Limits,
    secrets: Vec<&'a SecretString>,
) -> ServerCall<'a> {
    let (peer, name, endpoint) = match &connection.credentials {
        Credentials::Client(client) => (
            Peer::IdentityProvider,
            format!("the identity provider at {}", host(&client.token_url)),
            "the request for a token".into(),
        ),
        Credentials::Session(session) => (
            Peer::Sessions { project: &connection.project, id: session.id },
            connection.name(),
            SESSION_TOKENS.to_string(),
        ),
    };
    ServerCall {
        peer,
        name,
        endpoint,
        resend: Resend::Always,
        owed: Owed::Token,
        writes: false,
        bytes: 0,
        limits,
        secrets,
    }
}

async fn renew(
    transport: &Transport,
    connection: &Connection,
    limits: &Limits,
) -> Result<Temporary<SecretString>, RequestError> {
    match &connection.credentials {
        Credentials::Client(client) => of_client(transport, connection, client, limits).await,
        Credentials::Session(session) => of_session(transport, connection, session, limits).await,
    }
}

async fn of_client(
    transport: &Transport,
    connection: &Connection,
    client: &OidcClient,
    limits: &Limits,
) -> Result<Temporary<SecretString>, RequestError> {
    // What the client shows: its secret, a header with the secret in it, or an assertion.
    let shown = match &client.proof {
        Proof::Secret(secret, TokenAuth::Post) => secret.clone(),
        Proof::Secret(secret, TokenAuth::Basic) => basic(&client.client_id, secret),
        Proof::AssertionFile(path) => assertion::read(path.clone()).await?,
    };
    let mut form = vec![("grant_type", "client_credentials")];
    let mut authorization = None;
    match &client.proof {
        Proof::Secret(_, TokenAuth::Post) => {
            form.extend([("client_id", client.client_id.as_str()), ("client_secret", shown.expose_secret())]);
        }
        Proof::Secret(_, TokenAuth::Basic) => {
            let mut value = HeaderValue::try_from(format!("Basic {}", shown.expose_secret()))
                .map_err(|_| Error::internal("base64 is no value of a header"))?;
            value.set_sensitive(true);
            authorization = Some(value);
        }
        Proof::AssertionFile(_) => form.extend([
            ("client_id", client.client_id.as_str()),
            ("client_assertion_type", assertion::TYPE),
            ("client_assertion", shown.expose_secret()),
        ]),
    }
    form.extend(client.scope.as_deref().map(|scope| ("scope", scope)));
    form.extend(client.audience.as_deref().map(|audience| ("audience", audience)));

    let secrets = connection.credentials.secret().into_iter().chain([&shown]).collect();
    let call = call(connection, limits, secrets);
    let prepare = |_| {
        let mut request = transport.http().post(client.token_url.clone()).form(&form);
        request = request.header(header::ACCEPT, "application/json");
        if let Some(authorization) = &authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        std::future::ready(Ok((request, None)))
    };
    // The life of a token begins when it is issued, which may be as early as this.
    let asked_at = Instant::now();
    let answer = transport.exchange(&call, prepare).await?;
    Ok(temporary(&answer.body, asked_at)?)
}

/// Id and secret as a `Basic` header has them: form-encoded, joined, and in base64 (RFC 6749, 2.3.1).
fn basic(id: &str, secret: &SecretString) -> SecretString {
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let joined = SecretString::from(format!("{}:{}", encode(id), encode(secret.expose_secret())));
    BASE64_STANDARD.encode(joined.expose_secret()).into()
}

fn session_request(session: &CdfSession) -> Request {
    let body = serde_json::json!({ "sessionId": session.id, "sessionKey": session.key.expose_secret() });
    Request {
        endpoint: SESSION_TOKENS,
        body: RequestBody::Json(Bytes::from(body.to_string())),
        resend: Resend::Always,
        owed: Owed::Token,
    }
}

/// The key says whose session it is: the request has no token itself.
async fn of_session(
    transport: &Transport,
    connection: &Connection,
    session: &CdfSession,
    limits: &Limits,
) -> Result<Temporary<SecretString>, RequestError> {
    let request = session_request(session);
    let url = connection.project_url(&request.endpoint.target())?;
    let (headers, body) = encode(&request, false)?;
    let (url, headers, body) = (&url, &headers, &body.unwrap_or_default());
    let prepare = move |_| {
        let request = transport.http().post(url.clone()).headers(headers.clone()).body(body.clone());
        std::future::ready(Ok((request, None)))
    };
    let call = call(connection, limits, vec![&session.key]);
    let asked_at = Instant::now();
    let answer = transport.exchange(&call, prepare).await?;
    Ok(temporary(&answer.body, asked_at)?)
}

fn temporary(body: &[u8], asked_at: Instant) -> Result<Temporary<SecretString>, Error> {
    // The exchange ends only with an answer that could be read.
    let (secret, life) = token::read(body).map_err(Error::internal)?;
    Ok(Temporary { value: secret, renew_at: asked_at + life })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdf::error::Kind;
    use crate::cdf::http::testing::*;
    use crate::cdf::small_file::tests::TestFile;

    fn with_proof(mut connection: Connection, shown: Proof) -> Connection {
        match &mut connection.credentials {
            Credentials::Client(client) => client.proof = shown,
            Credentials::Session(_) => panic!("a session"),
        }
        connection
    }

    #[test]
    fn a_secret_in_the_header_is_form_encoded() {
        let server = serve(vec![reply(200, OK)]);
        let secret = SecretString::from("a:b c+ü/".to_owned());
        let connection = with_proof(server.connection(), Proof::Secret(secret, TokenAuth::Basic));
        block_on(client().send(&connection, &post(Resend::Always), &limits(0))).unwrap();
        let seen = &server.requests("/token")[0];
        let header = format!("Basic {}", BASE64_STANDARD.encode("me:a%3Ab+c%2B%C3%BC%2F"));
        assert_eq!(seen.headers["authorization"], header);
        assert_eq!(seen.body, b"grant_type=client_credentials&scope=scope%2F.default");
    }

    #[test]
    fn what_an_identity_provider_repeats_of_a_header_is_not_shown() {
        let secret = SecretString::from(SECRET.to_owned());
        let repeated = basic("me", &secret).expose_secret().to_owned();
        let body =
            serde_json::json!({ "error": "invalid_client", "error_description": format!("not {repeated}") });
        let server = serve_with(vec![reply(200, OK)], move |_| reply(401, body.to_string()));
        let connection = with_proof(server.connection(), Proof::Secret(secret, TokenAuth::Basic));
        let error = failure(block_on(client().send(&connection, &post(Resend::Always), &limits(0))));
        assert!(error.message.ends_with("invalid_client: not ***"), "{error}");
    }

    #[test]
    fn an_assertion_is_read_for_each_token() {
        let server = serve_with(vec![reply(200, OK)], |_| token_answer("0"));
        let file = TestFile::with(b"a.b.c\n");
        let connection = with_proof(server.connection(), Proof::AssertionFile(file.0.clone()));
        let (client, request, limits) = (client(), post(Resend::Always), limits(0));
        let send = || client.send(&connection, &request, &limits);
        block_on(send()).unwrap();
        std::fs::write(&file.0, "d.e.f").unwrap();
        block_on(send()).unwrap();
        let bodies: Vec<String> = server
            .requests("/token")
            .iter()
            .map(|seen| String::from_utf8(seen.body.clone()).unwrap())
            .collect();
        let form = |assertion: &str| {
            format!(
                "grant_type=client_credentials&client_id=me&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3A\
                 client-assertion-type%3Ajwt-bearer&client_assertion={assertion}&scope=scope%2F.default"
            )
        };
        assert_eq!(bodies, [form("a.b.c"), form("d.e.f")]);
        std::fs::write(&file.0, "geheim").unwrap();
        let error = failure(block_on(send()));
        assert_eq!(error.kind, Kind::NotAuthenticated);
        assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
        assert_eq!(server.counts().0, 2);
    }

    fn session(server: &Server) -> Connection {
        let mut connection = server.connection();
        connection.credentials = Credentials::Session(CdfSession { id: 1007, key: SECRET.to_owned().into() });
        connection
    }

    #[test]
    fn a_session_gets_its_tokens_from_cdf() {
        let token =
            format!("{{\"id\":1007,\"accessToken\":\"{TOKEN}\",\"expiresIn\":3600,\"mustRefreshIn\":null}}");
        let server = serve(vec![reply(200, token), reply(200, OK), reply(200, OK)]);
        let (client, connection, limits) = (client(), session(&server), limits(0));
        block_on(client.send(&connection, &post(Resend::Always), &limits)).unwrap();
        block_on(client.send(&connection, &post(Resend::Always), &limits)).unwrap();
        let seen = server.requests("/api");
        assert_eq!((seen.len(), server.requests("/token").len()), (3, 0));
        assert_eq!(
            (&*seen[0].method, &*seen[0].path),
            ("POST", "/api/v1/projects/my-project/sessions/token")
        );
        assert!(!seen[0].headers.contains_key("authorization"));
        assert_eq!(seen[0].body, br#"{"sessionId":1007,"sessionKey":"s3cr\"t+/="}"#);
        assert!(seen[1..].iter().all(|seen| seen.headers["authorization"] == format!("Bearer {TOKEN}")));
    }

    #[test]
    fn a_session_that_gets_no_token_is_told_in_cdfs_words() {
        let wordy = in_error("Session not found: s3cr\"t+/=");
        let server = serve(vec![reply(400, wordy)]);
        let error = failure(block_on(client().send(&session(&server), &post(Resend::Always), &limits(3))));
        assert_eq!(error.kind, Kind::NotAuthenticated);
        assert!(error.message.ends_with("gives no token to session 1007: Session not found: ***"), "{error}");
        assert!(error.hint.as_deref().unwrap().contains("session_key"), "{error:?}");
        assert_eq!(server.counts().1, 1);

        for (act, kind) in [
            (reply(200, "{\"access\":\"x\"}"), Kind::ConnectionLost),
            (reply(404, in_error("no such project")), Kind::CannotConnect),
            (reply(404, "<html>"), Kind::CannotConnect),
            (reply(503, "<html>"), Kind::ServerFailure),
        ] {
            let server = serve(vec![act]);
            let error =
                failure(block_on(client().send(&session(&server), &post(Resend::Always), &limits(0))));
            assert_eq!(error.kind, kind, "{error}");
        }
    }
}
