//! Sessions: long-lived access to a project that a client delegates. A nonce binds a session; the key that this returns
//! gets tokens from then on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{json, Value};

use crate::codec;
use crate::errors::ApiError;

/// How long a nonce can be used.
const NONCE_LIFE: Duration = Duration::from_secs(60);

/// What a session is created for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Wish {
    client_id: Option<String>,
    client_secret: Option<String>,
    token_exchange: Option<bool>,
    oneshot_token_exchange: Option<bool>,
}

/// Whose rights a session has.
#[derive(Debug, PartialEq)]
pub enum Holder {
    /// The client with this id and secret.
    Client { id: String, secret: String },
    /// The caller's, until the session is revoked.
    Caller,
    /// The caller's, but only once: its key gets no more tokens.
    CallerOnce,
}

impl Holder {
    fn kind(&self) -> &'static str {
        match self {
            Holder::Client { .. } => "CLIENT_CREDENTIALS",
            Holder::Caller => "TOKEN_EXCHANGE",
            Holder::CallerOnce => "ONESHOT_TOKEN_EXCHANGE",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Ready,
    Active,
    Revoked,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Ready => "READY",
            State::Active => "ACTIVE",
            State::Revoked => "REVOKED",
        }
    }
}

struct Session {
    project: String,
    client_id: String,
    kind: &'static str,
    state: State,
    nonce: String,
    nonce_expires: Instant,
    key: String,
    created_ms: i64,
}

/// The credentials in a request for a token.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Proof {
    Nonce(Nonce),
    Key(Key),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nonce {
    nonce: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Key {
    session_id: u64,
    session_key: String,
}

/// A session that gets a token.
pub struct Granted {
    pub id: u64,
    pub client_id: String,
    /// The key, returned only when the session is bound.
    pub key: Option<String>,
}

/// The sessions of all projects.
#[derive(Default)]
pub struct Sessions {
    sessions: BTreeMap<u64, Session>,
}

impl Sessions {
    /// Reads the body of `POST /sessions`.
    pub fn wish(body: &[u8]) -> Result<Holder, ApiError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            items: Vec<Wish>,
        }
        let mut body: Body = read(body)?;
        let (Some(wish), true) = (body.items.pop(), body.items.is_empty()) else {
            return Err(ApiError::bad_request("Request must contain exactly 1 item in request body"));
        };
        match wish {
            Wish {
                client_id: Some(id),
                client_secret: Some(secret),
                token_exchange: None,
                oneshot_token_exchange: None,
            } => Ok(Holder::Client { id, secret }),
            Wish {
                client_id: None,
                client_secret: None,
                token_exchange: Some(true),
                oneshot_token_exchange: None,
            } => Ok(Holder::Caller),
            Wish {
                client_id: None,
                client_secret: None,
                token_exchange: None,
                oneshot_token_exchange: Some(true),
            } => Ok(Holder::CallerOnce),
            _ => Err(ApiError::bad_request(
                "A session has either clientId and clientSecret, or tokenExchange, or oneshotTokenExchange",
            )),
        }
    }

    /// Creates a session, which nobody can use before its nonce is exchanged.
    pub fn create(&mut self, project: &str, client_id: String, holder: &Holder) -> Value {
        let id = self.sessions.keys().next_back().map_or(1000, |last| last + 7);
        let session = Session {
            project: project.to_owned(),
            kind: holder.kind(),
            state: State::Ready,
            nonce: codec::uuid(),
            nonce_expires: Instant::now() + NONCE_LIFE,
            key: format!("key-{}{}", codec::uuid(), codec::uuid()),
            created_ms: codec::now_ms(),
            client_id,
        };
        let mut item =
            json!({ "id": id, "type": session.kind, "status": session.state.name(), "nonce": session.nonce });
        if let Holder::Client { id, .. } = holder {
            item["clientId"] = json!(id);
        }
        self.sessions.insert(id, session);
        json!({ "items": [item] })
    }

    /// Returns who gets a token for the body of `POST /sessions/token`.
    pub fn grant(&mut self, project: &str, body: &[u8]) -> Result<Granted, ApiError> {
        match read(body)? {
            Proof::Nonce(Nonce { nonce }) => {
                let (id, session) = self
                    .sessions
                    .iter_mut()
                    .find(|(_, session)| {
                        session.project == project && session.state == State::Ready && session.nonce == nonce
                    })
                    .ok_or_else(|| ApiError::bad_request("Invalid nonce"))?;
                if session.nonce_expires <= Instant::now() {
                    return Err(ApiError::bad_request("Nonce has expired"));
                }
                session.state = State::Active;
                Ok(Granted { id: *id, client_id: session.client_id.clone(), key: Some(session.key.clone()) })
            }
            Proof::Key(Key { session_id, session_key }) => {
                let session = self
                    .sessions
                    .get(&session_id)
                    .filter(|session| session.project == project && session.key == session_key)
                    .ok_or_else(|| ApiError::bad_request("Session not found"))?;
                if session.state != State::Active || session.kind == Holder::CallerOnce.kind() {
                    return Err(ApiError::new(403, "Session is not active"));
                }
                Ok(Granted { id: session_id, client_id: session.client_id.clone(), key: None })
            }
        }
    }

    /// `GET /sessions`: all sessions, without nonces and keys.
    pub fn list(&self, project: &str) -> Value {
        let items: Vec<Value> = self
            .of(project)
            .map(|(id, session)| {
                json!({
                    "id": id,
                    "type": session.kind,
                    "status": session.state.name(),
                    "creationTime": session.created_ms,
                    "expirationTime": session.created_ms + 365 * 24 * 3_600_000,
                    "clientId": session.client_id,
                })
            })
            .collect();
        json!({ "items": items })
    }

    /// `POST /sessions/revoke`: these get no more tokens. Unknown ids are ignored.
    pub fn revoke(&mut self, project: &str, body: &[u8]) -> Result<Value, ApiError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Id {
            id: u64,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            items: Vec<Id>,
        }
        let body: Body = read(body)?;
        for Id { id } in &body.items {
            if let Some(session) = self.sessions.get_mut(id).filter(|session| session.project == project) {
                session.state = State::Revoked;
            }
        }
        let items: Vec<Value> = self
            .of(project)
            .filter(|(id, _)| body.items.iter().any(|item| item.id == **id))
            .map(|(id, session)| json!({ "id": id, "type": session.kind, "status": session.state.name() }))
            .collect();
        Ok(json!({ "items": items }))
    }

    fn of<'a>(&'a self, project: &'a str) -> impl Iterator<Item = (&'a u64, &'a Session)> {
        self.sessions.iter().filter(move |(_, session)| session.project == project)
    }
}

/// Parses a body. A refusal does not quote it, since it contains secrets.
fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|_| ApiError::bad_request("Invalid request body"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_to_ask_for_a_session_at_a_time() {
        let wish = |item: Value| Sessions::wish(json!({ "items": [item] }).to_string().as_bytes());
        let client = Holder::Client { id: "a".into(), secret: "b".into() };
        assert_eq!(wish(json!({ "clientId": "a", "clientSecret": "b" })), Ok(client));
        assert_eq!(wish(json!({ "tokenExchange": true })), Ok(Holder::Caller));
        assert_eq!(wish(json!({ "oneshotTokenExchange": true })), Ok(Holder::CallerOnce));
        for item in [
            json!({}),
            json!({ "clientId": "a" }),
            json!({ "clientId": "a", "clientSecret": "b", "tokenExchange": true }),
            json!({ "tokenExchange": false }),
            json!({ "nonce": "a" }),
        ] {
            assert!(wish(item.clone()).is_err(), "{item}");
        }
        assert!(Sessions::wish(b"{\"items\":[]}").is_err());
    }

    #[test]
    fn a_nonce_binds_once_and_in_time_and_the_key_goes_on() {
        let mut sessions = Sessions::default();
        let made = sessions.create("p", "me".into(), &Holder::Caller);
        let nonce = json!({ "nonce": made["items"][0]["nonce"] }).to_string();
        assert!(sessions.grant("q", nonce.as_bytes()).is_err(), "another project");
        let bound = sessions.grant("p", nonce.as_bytes()).unwrap();
        let key = bound.key.unwrap();
        assert!(sessions.grant("p", nonce.as_bytes()).is_err(), "twice");

        let with = |id: u64, key: &str| json!({ "sessionId": id, "sessionKey": key }).to_string();
        for _ in 0..2 {
            let granted = sessions.grant("p", with(bound.id, &key).as_bytes()).unwrap();
            assert_eq!((granted.client_id.as_str(), granted.key), ("me", None));
        }
        for (project, id, key) in [("q", bound.id, &*key), ("p", bound.id + 7, &*key), ("p", bound.id, "x")] {
            let refused = sessions.grant(project, with(id, key).as_bytes()).err().unwrap();
            assert_eq!((refused.status, &*refused.message), (400, "Session not found"));
        }
        sessions.revoke("p", json!({ "items": [{ "id": bound.id }] }).to_string().as_bytes()).unwrap();
        assert_eq!(sessions.grant("p", with(bound.id, &key).as_bytes()).err().unwrap().status, 403);
        let shown = sessions.list("p").to_string();
        assert!(shown.contains("REVOKED") && !shown.contains(&key), "{shown}");

        let made = sessions.create("p", "me".into(), &Holder::Caller);
        sessions.sessions.values_mut().for_each(|session| session.nonce_expires = Instant::now());
        let nonce = json!({ "nonce": made["items"][0]["nonce"] }).to_string();
        assert_eq!(sessions.grant("p", nonce.as_bytes()).err().unwrap().message, "Nonce has expired");
    }
}
