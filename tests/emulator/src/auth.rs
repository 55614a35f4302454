//! The identity provider's side (OIDC client credentials, errors as Entra ID shapes them) and what a token may do.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{json, Map, Value};

use crate::codec;
use crate::errors::ApiError;
use crate::reply::Reply;

/// The client that exists from the start and after a reset.
pub const DEFAULT_CLIENT: &str = "test-client";
const DEFAULT_SECRET: &str = "test-secret";
/// The project that the default client has access to.
pub const DEFAULT_PROJECT: &str = "test-project";

const ALL_ACLS: &[&str] = &[
    "projectsAcl",
    "groupsAcl",
    "assetsAcl",
    "eventsAcl",
    "timeSeriesAcl",
    "rawAcl",
    "datasetsAcl",
    "labelsAcl",
    "filesAcl",
    "sequencesAcl",
    "relationshipsAcl",
    "extractionPipelinesAcl",
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
    /// What token/inspect tells of where it holds. It holds everywhere all the same.
    #[serde(default = "everywhere")]
    scope: Value,
}

fn everywhere() -> Value {
    json!({ "all": {} })
}

/// How `expires_in` is written in a token answer: identity providers differ.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExpiresInAs {
    #[default]
    Number,
    String,
    Omitted,
}

/// A client of the identity provider, as `POST /admin/clients` takes it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    client_id: String,
    client_secret: String,
    #[serde(default = "default_projects")]
    projects: Vec<String>,
    /// Lifetime of its tokens in seconds.
    #[serde(default = "default_expires_in")]
    expires_in: u64,
    #[serde(default)]
    expires_in_as: ExpiresInAs,
    /// None: everything.
    capabilities: Option<Vec<Capability>>,
    /// The token endpoint answers this status to right credentials.
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
    /// The id, never the secret.
    pub fn id(&self) -> &str {
        &self.client_id
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
}

impl Directory {
    fn initial() -> Self {
        let client = Client {
            client_id: DEFAULT_CLIENT.into(),
            client_secret: DEFAULT_SECRET.into(),
            projects: default_projects(),
            expires_in: default_expires_in(),
            expires_in_as: ExpiresInAs::Number,
            capabilities: None,
            token_status: None,
            token_error: None,
        };
        Self { clients: HashMap::from([(client.client_id.clone(), client)]), tokens: HashMap::new() }
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

    /// Makes every token worthless; new ones may be fetched.
    pub fn revoke_tokens(&self) -> usize {
        let mut directory = self.lock();
        let count = directory.tokens.len();
        directory.tokens.clear();
        count
    }

    /// The client behind an `Authorization` header.
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

    /// `POST …/oauth2/v2.0/token`. Returns the client id for the log beside the answer.
    pub fn token(&self, content_type: &str, body: &[u8]) -> (Option<String>, Reply) {
        if content_type != "application/x-www-form-urlencoded" {
            let reply = refusal(400, "invalid_request", 900144, "The request body must be form-urlencoded.");
            return (None, reply);
        }
        let form: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let reply = self.grant(&field).unwrap_or_else(|reply| *reply);
        (form.get("client_id").cloned(), reply)
    }

    fn grant<'a>(&self, field: &impl Fn(&str) -> &'a str) -> Result<Reply, Box<Reply>> {
        let refuse = |status, error, code, text: &str| Err(Box::new(refusal(status, error, code, text)));
        for name in ["grant_type", "client_id", "client_secret"] {
            if field(name).is_empty() {
                let text = format!("The request body must contain the following parameter: '{name}'.");
                return refuse(400, "invalid_request", 900144, &text);
            }
        }
        if field("grant_type") != "client_credentials" {
            return refuse(400, "unsupported_grant_type", 70003, "The grant type is not supported.");
        }
        let mut directory = self.lock();
        let Some(client) = directory.clients.get(field("client_id")).cloned() else {
            return refuse(400, "unauthorized_client", 700016, "Application was not found in the directory.");
        };
        if client.client_secret != field("client_secret") {
            return refuse(401, "invalid_client", 7000215, "Invalid client secret provided.");
        }
        let (scope, audience) = (field("scope"), field("audience"));
        if scope.is_empty() && audience.is_empty() {
            let text = "The request body must contain the following parameter: 'scope'.";
            return refuse(400, "invalid_request", 900144, text);
        }
        // Entra ID names the resource by scope; others do by audience, where scope may be anything.
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
        let token = format!("emulated.{:016x}{:016x}", codec::random_bits(), codec::random_bits());
        let expires = Instant::now() + Duration::from_secs(client.expires_in);
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
        directory.tokens.insert(token, Token { client_id: client.client_id, expires });
        Ok(Reply::json(200, &Value::Object(answer)))
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
            None => ALL_ACLS
                .iter()
                .map(|acl| {
                    let actions: &[&str] = match *acl {
                        "rawAcl" => &["READ", "WRITE", "LIST"],
                        "projectsAcl" | "groupsAcl" => &["LIST", "READ"],
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
        let (_, reply) = auth.token("application/x-www-form-urlencoded", body.as_bytes());
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
}
