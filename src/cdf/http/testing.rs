//! A server that answers as it is told to, and what the tests send to it.

use std::collections::HashMap;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::client::Client;
use super::connection::Connection;
use super::credentials::{Credentials, OidcClient, Proof, TokenAuth};
use super::endpoint::Endpoint;
use super::exchange::Transport;
use super::owed::Owed;
use super::request::{Limits, Request, RequestBody};
use super::response::Response;
use super::retry::Resend;
use crate::cdf::activity::{Activity, Errand};
use crate::cdf::error::{Error, RequestError};

pub const SECRET: &str = "s3cr\"t+/=";
pub const TOKEN: &str = "t0ken-of-the-test";
/// What acknowledges the requests of these tests.
pub const OK: &str = "{\"taken\":true}";

/// A request as the server has read it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

/// What the server does with a request.
pub enum Act {
    Reply(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Replies, but closes the connection without saying so.
    ReplyAndClose(u16, Vec<u8>),
    /// Closes the connection without an answer.
    Close,
    /// Sends the beginning of a successful answer, and closes the connection.
    Break,
    /// Never answers.
    Hang,
}

pub fn reply(status: u16, body: impl Into<Vec<u8>>) -> Act {
    Act::Reply(status, vec![], body.into())
}

pub fn reply_with(status: u16, header: &'static str, value: impl Into<String>) -> Act {
    Act::Reply(status, vec![(header, value.into())], b"{\"error\":{\"message\":\"told so\"}}".to_vec())
}

pub struct Server {
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// Plays the given acts for requests to the project, one after the other, the last one for ever. Token requests
/// are answered by `token`, which is told how many there have been.
pub fn serve_with(acts: Vec<Act>, token: impl Fn(usize) -> Act + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Vec::<Seen>::new()));
    let server = Server { address, seen: seen.clone() };
    let (acts, token) = (Arc::new(acts), Arc::new(token));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (seen, acts, token) = (seen.clone(), acts.clone(), token.clone());
            std::thread::spawn(move || converse(stream.unwrap(), &seen, &acts, &*token));
        }
    });
    server
}

fn converse(stream: TcpStream, seen: &Mutex<Vec<Seen>>, acts: &[Act], token: &dyn Fn(usize) -> Act) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read_request(&mut reader) {
        let to_token = request.path.starts_with("/token");
        let before = {
            let mut seen = seen.lock().unwrap();
            seen.push(request);
            seen.iter().filter(|seen| seen.path.starts_with("/token") == to_token).count() - 1
        };
        let of_token;
        let act = if to_token {
            of_token = token(before);
            &of_token
        } else {
            &acts[before.min(acts.len() - 1)]
        };
        let (status, headers, body): (_, &[_], _) = match act {
            Act::Reply(status, headers, body) => (*status, headers, body),
            Act::ReplyAndClose(status, body) => (*status, &[], body),
            Act::Close => return,
            Act::Break => {
                let _ = (&stream).write_all(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{}",
                );
                return;
            }
            Act::Hang => {
                // Until the client closes the connection.
                let _ = reader.read(&mut [0]);
                return;
            }
        };
        let mut head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            head += "content-type: application/json\r\n";
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let answer = [head.as_bytes(), b"\r\n", body].concat();
        if (&stream).write_all(&answer).is_err() || matches!(act, Act::ReplyAndClose(..)) {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { method, path, headers, body })
}

pub fn token_answer(life: &str) -> Act {
    reply(200, format!("{{\"access_token\":\"{TOKEN}\",\"expires_in\":{life}}}"))
}

pub fn serve(acts: Vec<Act>) -> Server {
    serve_with(acts, |_| token_answer("\"3600\""))
}

impl Server {
    pub fn connection(&self) -> Connection {
        let base_url = format!("http://{}", self.address).parse().unwrap();
        let credentials = Credentials::Client(OidcClient {
            token_url: format!("http://{}/token?key=query-secret", self.address).parse().unwrap(),
            client_id: "me".into(),
            proof: Proof::Secret(SECRET.to_owned().into(), TokenAuth::Post),
            scope: Some("scope/.default".into()),
            audience: None,
        });
        Connection::new(base_url, "my-project".into(), credentials)
    }

    pub fn requests(&self, path: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path.starts_with(path)).cloned().collect()
    }

    /// How many requests there were to the token endpoint, and to the project.
    pub fn counts(&self) -> (usize, usize) {
        (self.requests("/token").len(), self.requests("/api").len())
    }
}

pub fn client() -> Client {
    // Whatever proxy the environment names does not know the test's server.
    Client::with(Transport::build(reqwest::Client::builder().no_proxy()).unwrap())
}

pub fn limits(max_retries: u32) -> Limits {
    let deadline_setting = Duration::from_secs(600);
    Limits {
        deadline: Instant::now() + deadline_setting,
        deadline_setting,
        request_timeout: Duration::from_secs(60),
        max_retries,
        errand: Errand::of(&Activity::asking("for something".into())),
    }
}

pub fn post(resend: Resend) -> Request {
    Request {
        endpoint: Endpoint::post("/assets").with("x", 1),
        body: RequestBody::Json(Bytes::from_static(b"{\"items\":[]}")),
        resend,
        owed: Owed::Object,
    }
}

/// Sends on a new connection, within a deadline that only a test that would hang gets to see.
#[allow(clippy::result_large_err)] // it is what the asynchronous function returns
pub fn send(server: &Server, resend: Resend, limits: &Limits) -> Result<Response, RequestError> {
    block_on(client().send(&server.connection(), &post(resend), limits))
}

pub fn block_on<T>(future: impl Future<Output = T> + Send) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The error that the user gets, after a check that it holds nothing secret.
pub fn failure(result: Result<Response, RequestError>) -> Error {
    let error = result.unwrap_err().into_error("assetsAcl:WRITE");
    let shown = format!("{error} {error:?}");
    for secret in [SECRET, "s3cr", TOKEN, "Bearer", "query-secret"] {
        assert!(!shown.contains(secret), "{shown} holds {secret}");
    }
    error
}

pub fn in_error(text: &str) -> Vec<u8> {
    serde_json::json!({ "error": { "message": text } }).to_string().into_bytes()
}
