//! The identity provider (OIDC client credentials, with Entra ID's form of errors), and what a token may do.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::Method;
use base64::prelude::{Engine, BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{json, Map, Value};

use crate::codec;
use crate::errors::ApiError;
use crate::reply::Reply;
use crate::resources;
use crate::sessions::{Holder, Sessions};

/// The client that exists from the start and after a reset.
pub const DEFAULT_CLIENT: &str = "test-client";
const DEFAULT_SECRET: &str = "test-secret";
/// The project that the default client has access to.
pub const DEFAULT_PROJECT: &str = "test-project";
/// The only type of client assertion (RFC 7523, 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long the token of a session is valid, in seconds.
const SESSION_TOKEN_LIFE: u64 = 3599;

/// The ACLs that belong to no classic resource.
const OTHER_ACLS: &[&str] = &[
    "projectsAcl",
    "groupsAcl",
    "sessionsAcl",
    "rawAcl",
    "extractionRunsAcl",
    "dataModelsAcl",
    "dataModelInstancesAcl",
];

/// What one ACL allows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capability {
    acl: String,
    actions: Vec<String>,
    /// The scope that token/inspect tells. It is only told: the capability holds everywhere.
    #[serde(default = "everywhere")]
    scope: Value,
}

fn everywhere() -> Value {
    json!({ "all": {} })
}

/// How `expires_in` is written in a token answer, in which identity providers differ.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExpiresInAs {
    #[default]
    Number,
    String,
    Omitted,
}

/// How a client may send its secret (RFC 6749, 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TokenAuth {
    Post,
    Basic,
}

/// How the client of a request proves its identity.
enum Proof<'a> {
    Secret(TokenAuth, String),
    Assertion(&'a str),
}

/// A client of the identity provider, as `POST /admin/clients` takes it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    client_id: String,
    /// None: the client has no valid secret.
    client_secret: Option<String>,
    /// The assertion that is accepted instead of a secret.
    client_assertion: Option<String>,
    /// None: either way.
    token_auth: Option<TokenAuth>,
    #[serde(default = "default_projects")]
    projects: Vec<String>,
    /// Lifetime of its tokens in seconds.
    #[serde(default = "default_expires_in")]
    expires_in: u64,
    #[serde(default)]
    expires_in_as: ExpiresInAs,
    /// None: everything.
    capabilities: Option<Vec<Capability>>,
    /// The status with which the token endpoint answers valid credentials.
    token_status: Option<u16>,
    /// `error` of that answer.
    token_error: Option<String>,
}

fn default_projects() -> Vec<String> {
    vec![DEFAULT_PROJECT.into()]
}

fn default_expires_in() -> u64 {
    3599
}

impl Client {
    /// Shows the id, never the secret.
    pub fn id(&self) -> &str {
        &self.client_id
    }

    fn accepts(&self, proof: &Proof<'_>) -> bool {
        match proof {
            Proof::Secret(way, secret) => {
                self.client_secret.as_ref() == Some(secret)
                    && self.token_auth.is_none_or(|token_auth| token_auth == *way)
            }
            Proof::Assertion(assertion) => self.client_assertion.as_deref() == Some(*assertion),
        }
    }

    fn allows(&self, acl: &str, action: &str) -> bool {
        self.capabilities.as_ref().is_none_or(|capabilities| {
            capabilities
                .iter()
                .any(|capability| capability.acl == acl && capability.actions.iter().any(|a| a == action))
        })
    }
}

struct Token {
    client_id: String,
    expires: Instant,
}

struct Directory {
    clients: HashMap<String, Client>,
    tokens: HashMap<String, Token>,
    sessions: Sessions,
}

impl Directory {
    fn initial() -> Self {
        let client = Client {
            client_id: DEFAULT_CLIENT.into(),
            client_secret: Some(DEFAULT_SECRET.into()),
            client_assertion: None,
            token_auth: None,
            projects: default_projects(),
            expires_in: default_expires_in(),
            expires_in_as: ExpiresInAs::Number,
            capabilities: None,
            token_status: None,
            token_error: None,
        };
        Self {
            clients: HashMap::from([(client.client_id.clone(), client)]),
            tokens: HashMap::new(),
            sessions: Sessions::default(),
        }
    }

    /// Issues a new token to a client.
    fn issue(&mut self, client_id: String, seconds: u64) -> String {
        let token = format!("emulated.{:016x}{:016x}", codec::random_bits(), codec::random_bits());
        let expires = Instant::now() + Duration::from_secs(seconds);
        self.tokens.insert(token.clone(), Token { client_id, expires });
        token
    }
}

/// Clients and the tokens that they hold.
pub struct Auth(Mutex<Directory>);

impl Default for Auth {
    fn default() -> Self {
        Self(Mutex::new(Directory::initial()))
    }
}

impl Auth {
    fn lock(&self) -> std::sync::MutexGuard<'_, Directory> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Forgets every client but the default one, and every token.
    pub fn reset(&self) {
        *self.lock() = Directory::initial();
    }

    /// Adds or replaces a client. Tokens that it holds stay valid, with its new rights.
    pub fn put_client(&self, client: Client) {
        self.lock().clients.insert(client.client_id.clone(), client);
    }

    /// Invalidates every token; new ones may be fetched.
    pub fn revoke_tokens(&self) -> usize {
        let mut directory = self.lock();
        let count = directory.tokens.len();
        directory.tokens.clear();
        count
    }

    /// Returns the client that an `Authorization` header identifies.
    pub fn authenticate(&self, authorization: Option<&str>) -> Result<Client, ApiError> {
        let token = authorization.and_then(|header| header.strip_prefix("Bearer "));
        let directory = self.lock();
        token
            .and_then(|token| directory.tokens.get(token))
            .filter(|token| token.expires > Instant::now())
            .and_then(|token| directory.clients.get(&token.client_id))
            .cloned()
            .ok_or_else(ApiError::unauthenticated)
    }

    /// Whether a client may do `action` in `project`. A client without access to the project gets 401, as in CDF.
    pub fn authorize(client: &Client, project: &str, acl: &str, action: &str) -> Result<(), ApiError> {
        if !client.projects.iter().any(|p| p == project) {
            return Err(ApiError::no_access_to_project());
        }
        if !client.allows(acl, action) {
            return Err(ApiError::forbidden());
        }
        Ok(())
    }

    /// `POST …/oauth2/v2.0/token`. Returns the client id for the log, and the answer.
    pub fn token(
        &self,
        content_type: &str,
        authorization: Option<&str>,
        body: &[u8],
    ) -> (Option<String>, Reply) {
        if content_type != "application/x-www-form-urlencoded" {
            let reply = refusal(400, "invalid_request", 900144, "The request body must be form-urlencoded.");
            return (None, reply);
        }
        let form: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let basic = match authorization.map(basic) {
            Some(None) => return (None, refusal(401, "invalid_client", 7000216, "Malformed authorization.")),
            Some(Some(basic)) => Some(basic),
            None => None,
        };
        let named = basic.as_ref().map(|(id, _)| id.clone()).or_else(|| form.get("client_id").cloned());
        let reply = self.grant(&field, basic).unwrap_or_else(|reply| *reply);
        (named, reply)
    }

    fn grant<'a>(
        &self,
        field: &impl Fn(&str) -> &'a str,
        basic: Option<(String, String)>,
    ) -> Result<Reply, Box<Reply>> {
        let refuse = |status, error, code, text: &str| Err(Box::new(refusal(status, error, code, text)));
        let absent = |name: &str| {
            let text = format!("The request body must contain the following parameter: '{name}'.");
            Err(Box::new(refusal(400, "invalid_request", 900144, &text)))
        };
        if field("grant_type").is_empty() {
            return absent("grant_type");
        }
        let (secret, assertion) = (field("client_secret"), field("client_assertion"));
        let ways = [!secret.is_empty(), !assertion.is_empty(), basic.is_some()];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return refuse(400, "invalid_request", 7000217, "More than one way of client authentication.");
        }
        let (client_id, proof) = match basic {
            Some((id, _)) if !["", &*id].contains(&field("client_id")) => {
                return refuse(400, "invalid_request", 7000217, "Two different clients are named.")
            }
            Some((id, secret)) => (id, Proof::Secret(TokenAuth::Basic, secret)),
            None if field("client_id").is_empty() => return absent("client_id"),
            None if !assertion.is_empty() => {
                if field("client_assertion_type") != ASSERTION_TYPE {
                    return refuse(400, "invalid_request", 50027, "Invalid client_assertion_type.");
                }
                (field("client_id").to_owned(), Proof::Assertion(assertion))
            }
            None if secret.is_empty() => return absent("client_secret"),
            None => (field("client_id").to_owned(), Proof::Secret(TokenAuth::Post, secret.to_owned())),
        };
        if field("grant_type") != "client_credentials" {
            return refuse(400, "unsupported_grant_type", 70003, "The grant type is not supported.");
        }
        let mut directory = self.lock();
        let Some(client) = directory.clients.get(&client_id).cloned() else {
            return refuse(400, "unauthorized_client", 700016, "Application was not found in the directory.");
        };
        if !client.accepts(&proof) {
            return match proof {
                Proof::Secret(..) => {
                    refuse(401, "invalid_client", 7000215, "Invalid client secret provided.")
                }
                Proof::Assertion(_) => {
                    refuse(401, "invalid_client", 700027, "Client assertion failed signature validation.")
                }
            };
        }
        let (scope, audience) = (field("scope"), field("audience"));
        if scope.is_empty() && audience.is_empty() {
            let text = "The request body must contain the following parameter: 'scope'.";
            return refuse(400, "invalid_request", 900144, text);
        }
        // Entra ID names the resource by scope; others name it by audience, and then scope may be anything.
        if audience.is_empty() && scope.split(' ').any(|scope| !scope.ends_with("/.default")) {
            let text =
                "The provided value for scope is not valid. Client credential flows must have a scope \
                        value with /.default suffixed to the resource identifier (application ID URI).";
            return refuse(400, "invalid_scope", 1002012, text);
        }
        if let Some(status) = client.token_status {
            let error = client.token_error.as_deref().unwrap_or("invalid_client");
            return refuse(status, error, 7000222, "The provided client secret keys are expired.");
        }
        let token = directory.issue(client.client_id.clone(), client.expires_in);
        let mut answer = Map::new();
        answer.insert("token_type".into(), json!("Bearer"));
        match client.expires_in_as {
            ExpiresInAs::Number => drop(answer.insert("expires_in".into(), json!(client.expires_in))),
            ExpiresInAs::String => {
                drop(answer.insert("expires_in".into(), json!(client.expires_in.to_string())))
            }
            ExpiresInAs::Omitted => {}
        }
        answer.insert("access_token".into(), json!(token));
        Ok(Reply::json(200, &Value::Object(answer)))
    }

    /// The requests below a project's `/sessions`. Returns the client id for the log, and the answer.
    pub fn sessions(
        &self,
        method: &Method,
        project: &str,
        path: &[String],
        authorization: Option<&str>,
        body: &[u8],
    ) -> Result<(String, Reply), ApiError> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let action = match (method, path.as_slice()) {
            // The nonce or the key identifies the sender. A token that is sent as well must still be valid.
            (&Method::POST, ["token"]) => {
                authorization.map(|header| self.authenticate(Some(header))).transpose()?;
                return self.session_token(project, body);
            }
            (&Method::POST, []) => "CREATE",
            (&Method::GET, []) => "LIST",
            (&Method::POST, ["revoke"]) => "DELETE",
            _ => return Err(ApiError::new(404, "Not Found")),
        };
        let client = self.authenticate(authorization)?;
        Self::authorize(&client, project, "sessionsAcl", action)?;
        let mut directory = self.lock();
        let answer = match action {
            "CREATE" => {
                let wish = Sessions::wish(body)?;
                let holder = match &wish {
                    Holder::Client { id, secret } => directory
                        .clients
                        .get(id)
                        .filter(|holder| holder.client_secret.as_ref() == Some(secret))
                        .ok_or_else(|| {
                            let text =
                                "Resource not found. This may also be due to insufficient access rights.";
                            ApiError::new(403, text)
                        })?
                        .client_id
                        .clone(),
                    Holder::Caller | Holder::CallerOnce => client.client_id.clone(),
                };
                directory.sessions.create(project, holder, &wish)
            }
            "LIST" => directory.sessions.list(project),
            _ => directory.sessions.revoke(project, body)?,
        };
        Ok((client.client_id, Reply::json(200, &answer)))
    }

    /// `POST /sessions/token`.
    fn session_token(&self, project: &str, body: &[u8]) -> Result<(String, Reply), ApiError> {
        let mut directory = self.lock();
        let granted = directory.sessions.grant(project, body)?;
        let life =
            directory.clients.get(&granted.client_id).map_or(SESSION_TOKEN_LIFE, |client| client.expires_in);
        let token = directory.issue(granted.client_id.clone(), life);
        let mut answer =
            json!({ "id": granted.id, "accessToken": token, "expiresIn": life, "mustRefreshIn": null });
        if let Some(key) = granted.key {
            answer["sessionKey"] = json!(key);
        }
        Ok((granted.client_id, Reply::json(200, &answer)))
    }

    /// `GET /api/v1/token/inspect`.
    pub fn inspect(client: &Client) -> Reply {
        let capability = |acl: &str, actions: &[String], scope: &Value| {
            json!({
                acl: { "actions": actions, "scope": scope },
                "projectScope": { "projects": client.projects },
            })
        };
        let capabilities: Vec<Value> = match &client.capabilities {
            Some(capabilities) => {
                capabilities.iter().map(|c| capability(&c.acl, &c.actions, &c.scope)).collect()
            }
            None => OTHER_ACLS
                .iter()
                .copied()
                .chain(resources::classic_acls())
                .map(|acl| {
                    let actions: &[&str] = match acl {
                        "rawAcl" => &["READ", "WRITE", "LIST"],
                        "projectsAcl" | "groupsAcl" => &["LIST", "READ"],
                        "sessionsAcl" => &["LIST", "CREATE", "DELETE"],
                        "datasetsAcl" => &["READ", "WRITE", "OWNER"],
                        _ => &["READ", "WRITE"],
                    };
                    let actions: Vec<String> = actions.iter().map(|a| (*a).to_owned()).collect();
                    capability(acl, &actions, &everywhere())
                })
                .collect(),
        };
        let projects: Vec<Value> = client
            .projects
            .iter()
            .map(|project| json!({ "projectUrlName": project, "groups": [1] }))
            .collect();
        let body = json!({ "subject": client.client_id, "projects": projects, "capabilities": capabilities });
        Reply::json(200, &body)
    }
}

/// Returns id and secret of a `Basic` header; both are form-encoded before they are joined (RFC 6749, 2.3.1).
fn basic(header: &str) -> Option<(String, String)> {
    let joined = BASE64_STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
    let joined = String::from_utf8(joined).ok()?;
    let (id, secret) = joined.split_once(':')?;
    let decode = |part: &str| {
        // A form with one value and no name.
        let form = format!("={part}");
        let mut pairs = url::form_urlencoded::parse(form.as_bytes());
        let (_, value) = pairs.next()?;
        pairs.next().is_none().then(|| value.into_owned())
    };
    Some((decode(id)?, decode(secret)?))
}

fn refusal(status: u16, error: &str, code: u32, text: &str) -> Reply {
    let (trace, correlation) = (codec::uuid(), codec::uuid());
    let body = json!({
        "error": error,
        "error_description": format!("AADSTS{code}: {text} Trace ID: {trace} Correlation ID: {correlation}"),
        "error_codes": [code],
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
    });
    Reply::json(status, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(auth: &Auth, body: &str) -> (u16, Value) {
        let (_, reply) = auth.token("application/x-www-form-urlencoded", None, body.as_bytes());
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    const RIGHT: &str = "grant_type=client_credentials&client_id=test-client&client_secret=test-secret\
                         &scope=http%3A%2F%2Flocalhost%2F.default";

    #[test]
    fn token_and_revocation() {
        let auth = Auth::default();
        let (status, body) = ask(&auth, RIGHT);
        assert_eq!(status, 200);
        let header = format!("Bearer {}", body["access_token"].as_str().unwrap());
        assert!(auth.authenticate(Some(&header)).is_ok());
        assert_eq!(auth.revoke_tokens(), 1);
        assert_eq!(auth.authenticate(Some(&header)).err().map(|e| e.status), Some(401));
    }

    #[test]
    fn refusals_are_named_and_keep_the_secret() {
        let auth = Auth::default();
        for (body, status, error) in [
            (RIGHT.replace("test-secret", "hush"), 401, "invalid_client"),
            (RIGHT.replace("test-client", "nobody"), 400, "unauthorized_client"),
            (RIGHT.replace(".default", "x"), 400, "invalid_scope"),
            (RIGHT.replace("scope", "sc"), 400, "invalid_request"),
            (RIGHT.replace("client_credentials", "password"), 400, "unsupported_grant_type"),
        ] {
            let (got, answer) = ask(&auth, &body);
            assert_eq!((got, answer["error"].as_str()), (status, Some(error)), "{body}");
            assert!(!answer.to_string().contains("hush") && !answer.to_string().contains("test-secret"));
        }
    }
    fn answer(auth: &Auth, authorization: Option<&str>, body: &str) -> (u16, Value) {
        let (_, reply) = auth.token("application/x-www-form-urlencoded", authorization, body.as_bytes());
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    #[test]
    fn a_secret_in_a_header_is_form_encoded() {
        let auth = Auth::default();
        let client = json!({ "client_id": "a:b", "client_secret": "c d+%ü:=&", "token_auth": "basic" });
        auth.put_client(serde_json::from_value(client).unwrap());
        let header = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        let form = "grant_type=client_credentials&audience=x";
        let right = header("a%3Ab:c+d%2B%25%C3%BC%3A%3D%26");
        assert_eq!(answer(&auth, Some(&right), form).0, 200);
        assert_eq!(answer(&auth, Some(&right), &format!("{form}&client_id=a%3Ab")).0, 200);
        for (header, more, status) in [
            (header("a:b:c d+%ü:=&"), "", 400),
            (header("a%3Ab:x"), "", 401),
            (header("a%3Ab"), "", 401),
            ("Basic ?".into(), "", 401),
            ("Bearer x".into(), "", 401),
            (right.clone(), "&client_id=other", 400),
            (right.clone(), "&client_secret=x", 400),
        ] {
            assert_eq!(answer(&auth, Some(&header), &format!("{form}{more}")).0, status, "{header} {more}");
        }
        let in_form = format!("{form}&client_id=a%3Ab&client_secret=c+d%2B%25%C3%BC%3A%3D%26");
        assert_eq!(answer(&auth, None, &in_form).0, 401, "this client has to use the header");
    }

    #[test]
    fn an_assertion_stands_for_a_secret() {
        let auth = Auth::default();
        let client = json!({ "client_id": "pod", "client_assertion": "h.p.s" });
        auth.put_client(serde_json::from_value(client).unwrap());
        let ask =
            |form: &str| answer(&auth, None, &format!("grant_type=client_credentials&audience=x&{form}"));
        let named = "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
        assert_eq!(ask(&format!("client_id=pod&{named}&client_assertion=h.p.s")).0, 200);
        for (form, status) in [
            (format!("client_id=pod&{named}&client_assertion=h.p.x"), 401),
            (format!("{named}&client_assertion=h.p.s"), 400),
            ("client_id=pod&client_assertion=h.p.s".into(), 400),
            ("client_id=pod&client_assertion_type=jwt&client_assertion=h.p.s".into(), 400),
            (format!("client_id=pod&{named}&client_assertion=h.p.s&client_secret=x"), 400),
            ("client_id=pod&client_secret=h.p.s".into(), 401),
            (format!("client_id=test-client&{named}&client_assertion=h.p.s"), 401),
        ] {
            assert_eq!(ask(&form).0, status, "{form}");
        }
    }

    #[test]
    fn a_session_brings_tokens_of_its_client() {
        let auth = Auth::default();
        let (_, body) = ask(&auth, RIGHT);
        let header = format!("Bearer {}", body["access_token"].as_str().unwrap());
        let call = |path: &[&str], header: Option<&str>, body: Value| {
            let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
            let answer =
                auth.sessions(&Method::POST, DEFAULT_PROJECT, &path, header, body.to_string().as_bytes());
            answer.map(|(_, reply)| serde_json::from_slice::<Value>(&reply.body).unwrap())
        };
        let own = json!({ "items": [{ "tokenExchange": true }] });
        assert_eq!(call(&[], None, own.clone()).unwrap_err().status, 401);
        let wrong = json!({ "items": [{ "clientId": DEFAULT_CLIENT, "clientSecret": "x" }] });
        assert_eq!(call(&[], Some(&header), wrong).unwrap_err().status, 403);
        let made = call(&[], Some(&header), own).unwrap();
        let bound = call(&["token"], None, json!({ "nonce": made["items"][0]["nonce"] })).unwrap();
        let key = json!({ "sessionId": bound["id"], "sessionKey": bound["sessionKey"] });
        assert_eq!(call(&["token"], Some("Bearer x"), key.clone()).unwrap_err().status, 401);
        let token = call(&["token"], None, key).unwrap();
        let header = format!("Bearer {}", token["accessToken"].as_str().unwrap());
        assert_eq!(auth.authenticate(Some(&header)).unwrap().id(), DEFAULT_CLIENT);
    }
}
