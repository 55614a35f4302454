//! Requests, tokens and answers, against a scripted server.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use secrecy::SecretString;

use super::client::Client;
use super::connection::Connection;
use super::credentials::Credentials;
use super::exchange::USER_AGENT;
use super::gzip;
use super::oidc;
use super::owed::Owed;
use super::request::{Limits, Request, RequestBody};
use super::retry::Resend;
use super::testing::*;
use crate::cdf::error::{Error, Identity, Kind, RequestError};

/// The token that a request of this connection carries.
async fn token(
    client: &Client,
    connection: &Connection,
    limits: &Limits,
) -> Result<SecretString, RequestError> {
    oidc::token(&client.transport, connection, limits).await
}

#[test]
fn a_request_is_sent_as_cdf_expects_it() {
    let server = serve(vec![Act::Reply(201, vec![("x-request-id", "r-1".into())], b"{}".to_vec())]);
    let response = send(&server, Resend::Always, &limits(0)).unwrap();
    assert_eq!((response.status, &response.body[..]), (201, &b"{}"[..]));
    assert_eq!(response.request_id.as_deref(), Some("r-1"));
    let seen = &server.requests("/api")[0];
    assert_eq!((&seen.method[..], &seen.path[..]), ("POST", "/api/v1/projects/my-project/assets?x=1"));
    assert_eq!(seen.body, b"{\"items\":[]}");
    for (name, value) in [
        ("authorization", "Bearer t0ken-of-the-test"),
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("user-agent", USER_AGENT),
        ("x-cdp-app", "cdf_fdw"),
        ("cdf-version", "20230101"),
        ("accept-encoding", "gzip"),
    ] {
        assert_eq!(seen.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    let form = server.requests("/token")[0].clone();
    assert_eq!(form.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(
        form.body,
        b"grant_type=client_credentials&client_id=me&client_secret=s3cr%22t%2B%2F%3D&scope=scope%2F.default"
    );
}

#[test]
fn long_bodies_are_compressed_both_ways() {
    let text = Bytes::from(format!("{{\"x\":\"{}\"}}", "x".repeat(5000)));
    let compressed = gzip::compress(&text).unwrap();
    let server = serve(vec![Act::Reply(200, vec![("content-encoding", "gzip".into())], compressed.clone())]);
    let request = Request { body: RequestBody::Protobuf(text.clone()), ..post(Resend::Always) };
    let response = block_on(client().send(&server.connection(), &request, &limits(0))).unwrap();
    assert_eq!(response.body, text);
    let seen = &server.requests("/api")[0];
    assert_eq!(seen.headers["content-encoding"], "gzip");
    assert_eq!(seen.headers["content-type"], "application/protobuf");
    assert_eq!(seen.body, compressed);
}

#[test]
fn making_a_connection_is_timed() {
    let server = serve(vec![reply(200, "")]);
    let (client, connection) = (client(), server.connection());
    assert!(!connection.link.is_measured());
    let asked = client.transport.http().get(connection.project_url("/assets").unwrap()).send();
    block_on(connection.link.measured(asked)).unwrap();
    assert!(connection.link.is_measured());
}

#[test]
fn nothing_is_compressed_for_a_server_that_is_near() {
    let server = serve(vec![reply(200, OK)]);
    let connection = server.connection();
    let request =
        Request { body: RequestBody::Protobuf(Bytes::from("x".repeat(5000))), ..post(Resend::Always) };
    let client = client();
    block_on(async {
        client.send(&connection, &request, &limits(0)).await.unwrap();
        connection.link.connected_within(Duration::from_micros(100));
        client.send(&connection, &request, &limits(0)).await.unwrap();
    });
    let compressed: Vec<bool> = server
        .requests("/api")
        .iter()
        .map(|request| request.headers.contains_key("content-encoding"))
        .collect();
    assert_eq!(compressed, [true, false], "before the first connection nothing is known");
}

#[test]
fn a_server_error_is_retried() {
    let server = serve(vec![reply(503, ""), reply(502, "<html>"), reply(200, OK)]);
    assert_eq!(send(&server, Resend::Always, &limits(5)).unwrap().body, OK);
    assert_eq!(server.counts(), (1, 3));
}

#[test]
fn retries_end_and_the_error_tells_why() {
    let unavailable = || Act::Reply(503, vec![("x-request-id", "r-9".into())], in_error("under repair"));
    let server = serve(vec![unavailable()]);
    let error = failure(send(&server, Resend::Always, &limits(2)));
    assert_eq!(error.kind, Kind::ServerFailure);
    assert!(error.message.contains("POST /assets: under repair"), "{error}");
    assert!(error.to_string().ends_with("; it may have been accepted; x-request-id r-9"), "{error}");
    assert!(error.detail[0].contains("after 3 attempts"), "{error:?}");
    assert_eq!(server.counts(), (1, 3));
}

#[test]
fn throttling_is_told_as_such() {
    let server = serve(vec![reply(429, in_error("Project exceeded 50 requests"))]);
    let error = failure(send(&server, Resend::OnlyIfNotReceived, &limits(1)));
    assert_eq!(error.kind, Kind::Throttled);
    assert!(error.message.ends_with("POST /assets: Project exceeded 50 requests"), "{error}");
    assert_eq!(server.counts(), (1, 2));
}

#[test]
fn a_wish_to_wait_beyond_the_deadline_ends_the_request_at_once() {
    let server = serve(vec![reply_with(429, "retry-after", "3600")]);
    let error = failure(send(&server, Resend::Always, &limits(5)));
    assert_eq!(error.kind, Kind::Throttled);
    assert!(error.detail.iter().any(|line| line.contains("cdf_fdw.flush_timeout (10min)")), "{error:?}");
    assert_eq!(server.counts(), (1, 1));
}

#[test]
fn what_may_have_arrived_is_not_sent_again_when_that_would_create_items_twice() {
    for (act, kind) in [
        (Act::Close, Kind::ConnectionLost),
        (Act::Break, Kind::ConnectionLost),
        (reply(500, ""), Kind::ServerFailure),
        (reply(504, "<html>Gateway timeout</html>"), Kind::ServerFailure),
        (reply(501, ""), Kind::ServerFailure),
    ] {
        let server = serve(vec![act, reply(200, OK)]);
        let error = failure(send(&server, Resend::OnlyIfNotReceived, &limits(5)));
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().contains("may have been accepted"), "{error}");
        assert_eq!(server.counts(), (1, 1));
    }
}

#[test]
fn what_did_certainly_not_arrive_is_sent_again() {
    let server = serve(vec![
        reply(429, ""),
        reply(401, ""),
        reply_with(503, "cdf-is-auto-retryable", "true"),
        reply(200, OK),
    ]);
    assert_eq!(send(&server, Resend::OnlyIfNotReceived, &limits(5)).unwrap().body, OK);
    assert_eq!(server.counts(), (2, 4));
}

#[test]
fn a_broken_connection_is_retried_if_that_does_no_harm() {
    let server = serve(vec![Act::Close, Act::Break, reply(200, OK)]);
    assert_eq!(send(&server, Resend::Always, &limits(5)).unwrap().body, OK);
    let server = serve(vec![Act::Close]);
    let error = failure(send(&server, Resend::Always, &limits(1)));
    assert_eq!(error.kind, Kind::ConnectionLost);
    assert!(error.to_string().contains("may have been"), "{error}");
}

#[test]
fn a_pooled_connection_that_the_server_has_closed_does_no_harm() {
    let server = serve(vec![Act::ReplyAndClose(200, br#"{"a":1}"#.to_vec()), reply(200, OK)]);
    let (client, connection, request, limits) =
        (client(), server.connection(), post(Resend::Always), limits(5));
    block_on(async {
        assert_eq!(client.send(&connection, &request, &limits).await.unwrap().body, r#"{"a":1}"#);
        assert_eq!(client.send(&connection, &request, &limits).await.unwrap().body, OK);
    });
}

#[test]
fn a_refusal_is_passed_on_with_what_it_names() {
    let body = br#"{"error":{"code":400,"message":"Not found","missing":[{"id":7},{"externalId":"a"},
        {"instanceId":{"space":"s","externalId":"b"}},{"what":1}],"duplicated":[{"externalId":"c"}]}}"#;
    let server = serve(vec![reply(400, &body[..])]);
    let Err(RequestError::Api(error)) = send(&server, Resend::OnlyIfNotReceived, &limits(5)) else {
        panic!("no refusal")
    };
    assert_eq!((error.status, &error.message[..], &error.endpoint[..]), (400, "Not found", "POST /assets"));
    let instance = Identity::Instance { space: "s".into(), external_id: "b".into() };
    assert_eq!(error.missing, [Identity::Id(7), Identity::ExternalId("a".into()), instance]);
    assert_eq!(error.duplicated, [Identity::ExternalId("c".into())]);
    assert_eq!(server.counts(), (1, 1));
}

#[test]
fn a_refused_token_is_renewed_once() {
    let server = serve(vec![reply(401, in_error("expired")), reply(200, OK)]);
    assert_eq!(send(&server, Resend::OnlyIfNotReceived, &limits(0)).unwrap().body, OK);
    assert_eq!(server.counts(), (2, 2));

    let server = serve(vec![reply(401, in_error("Could not authenticate."))]);
    let error = failure(send(&server, Resend::Always, &limits(5)));
    assert_eq!(error.kind, Kind::NotAuthenticated);
    assert!(error.message.contains("\"my-project\": Could not authenticate."), "{error}");
    assert_eq!(server.counts(), (2, 2));
}

#[test]
fn points_are_asked_for_in_protobuf() {
    let message = b"\x0a\x02ab".to_vec();
    let headers = || vec![("content-type", "application/protobuf".into())];
    let server = serve(vec![Act::Reply(200, headers(), message.clone())]);
    let request = Request { owed: Owed::Points, ..post(Resend::Always) };
    let response = block_on(client().send(&server.connection(), &request, &limits(0))).unwrap();
    assert_eq!(response.body, message);
    assert_eq!(server.requests("/api")[0].headers["accept"], "application/protobuf");

    let server = serve(vec![Act::Reply(200, headers(), b"\x0a\x03ab".to_vec())]);
    let error = failure(block_on(client().send(&server.connection(), &request, &limits(0))));
    assert_eq!(error.kind, Kind::ConnectionLost);
    assert!(error.message.contains("content type application/protobuf"), "{error}");
}

/// Answers with a status of success that acknowledge nothing, and what an error tells of each.
fn foreign_answers() -> Vec<(Act, &'static str)> {
    let html = |body: &str| Act::Reply(200, vec![("content-type", "text/html".into())], body.into());
    vec![
        (html("<html><title>Sign in</title> with \u{7} care"), "content type text/html: Sign in with care"),
        (html("{}"), "it is not JSON"),
        (html("<html><body class='x' "), "HTTP status 200"),
        (reply(204, ""), "HTTP status 204, content type application/json: empty"),
        (reply(200, "[]"), "it is no JSON object"),
        (reply(202, "{\"items\":[{\"id\":1"), "it ends too early"),
        (reply(200, in_error("nothing happened")), "it holds an error"),
        (reply(302, ""), "it is a redirect to nowhere"),
    ]
}

#[test]
fn an_answer_that_is_not_the_one_owed_is_an_unknown_outcome() {
    for (act, words) in foreign_answers() {
        let server = serve(vec![act]);
        let error = failure(send(&server, Resend::Always, &limits(1)));
        assert_eq!(error.kind, Kind::ConnectionLost, "{error}");
        assert!(error.message.contains("no valid answer to POST /assets"), "{error}");
        assert!(error.message.contains(words), "{words}: {error}");
        assert!(error.to_string().contains("may have been") && !error.message.contains('<'), "{error}");
        assert!(error.detail.iter().any(|line| line.contains("after 2 attempts")), "{error:?}");
        assert_eq!(server.counts(), (1, 2));
    }
    for (act, words) in foreign_answers() {
        let server = serve(vec![act, reply(200, OK)]);
        let error = failure(send(&server, Resend::OnlyIfNotReceived, &limits(5)));
        assert_eq!(error.kind, Kind::ConnectionLost, "{error}");
        assert!(error.to_string().contains("may have been accepted"), "{words}: {error}");
        assert_eq!(server.counts(), (1, 1));
    }
}

#[test]
fn an_unknown_outcome_may_be_followed_by_the_answer_that_is_owed() {
    for (act, words) in foreign_answers() {
        let server = serve(vec![act, reply(200, OK)]);
        assert_eq!(send(&server, Resend::Always, &limits(1)).unwrap().body, OK, "{words}");
    }
}

#[test]
fn as_many_items_come_back_as_were_sent() {
    let request = Request { owed: Owed::Items(1), ..post(Resend::Always) };
    let server =
        serve(vec![reply(201, "{\"items\":[]}"), reply(200, "{}"), reply(201, "{\"items\":[{\"id\":1}]}")]);
    let response = block_on(client().send(&server.connection(), &request, &limits(5))).unwrap();
    assert_eq!((response.status, server.counts()), (201, (1, 3)));
}

#[test]
fn half_of_a_compressed_answer_is_none() {
    let compressed = gzip::compress(OK.as_bytes()).unwrap();
    let half = compressed[..compressed.len() - 9].to_vec();
    let act = Act::Reply(200, vec![("content-encoding", "gzip".into())], half);
    let server = serve(vec![act]);
    let error = failure(send(&server, Resend::OnlyIfNotReceived, &limits(5)));
    assert_eq!(error.kind, Kind::ConnectionLost);
    assert!(error.to_string().contains("may have been accepted"), "{error}");
}

#[test]
fn redirects_are_not_followed_and_named() {
    for status in [301, 307] {
        let elsewhere = serve(vec![reply(200, OK)]);
        let location = format!("http://u:{TOKEN}@{}/else?{TOKEN}", elsewhere.address);
        let server = serve(vec![reply_with(status, "location", location)]);
        let error = failure(send(&server, Resend::Always, &limits(1)));
        assert_eq!(error.kind, Kind::ConnectionLost);
        assert!(error.message.contains(&format!("to http://{}/else,", elsewhere.address)), "{error}");
        assert_eq!((server.counts(), elsewhere.counts()), ((1, 2), (0, 0)));
    }
}

#[test]
fn parallel_requests_share_one_token() {
    let server = serve(vec![reply(200, OK)]);
    let (client, connection) = (client(), Arc::new(server.connection()));
    block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let (client, connection) = (client.clone(), connection.clone());
            tasks.push(tokio::spawn(async move {
                client.send(&connection, &post(Resend::Always), &limits(0)).await
            }));
        }
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().body, OK);
        }
    });
    assert_eq!(server.counts(), (1, 8));
}

#[test]
fn parallel_requests_share_a_failure_to_get_a_token() {
    let server = serve_with(vec![reply(200, OK)], |_| reply(400, in_error("invalid_scope")));
    let (client, connection) = (client(), Arc::new(server.connection()));
    block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let (client, connection) = (client.clone(), connection.clone());
            tasks.push(tokio::spawn(async move {
                client.send(&connection, &post(Resend::Always), &limits(0)).await
            }));
        }
        for task in tasks {
            assert_eq!(failure(task.await.unwrap()).kind, Kind::NotAuthenticated);
        }
    });
    assert_eq!(server.counts(), (1, 0));
}

#[test]
fn a_token_without_life_is_renewed_for_each_request() {
    let server = serve_with(vec![reply(200, OK)], |_| token_answer("0"));
    let (client, connection, limits) = (client(), server.connection(), limits(0));
    block_on(async {
        client.send(&connection, &post(Resend::Always), &limits).await.unwrap();
        client.send(&connection, &post(Resend::Always), &limits).await.unwrap();
    });
    assert_eq!(server.counts(), (2, 2));
}

#[test]
fn a_renewed_token_survives_the_refusal_of_its_predecessor() {
    let server = serve(vec![reply(200, OK)]);
    let (client, connection, limits) = (client(), server.connection(), limits(0));
    block_on(async {
        token(&client, &connection, &limits).await.unwrap();
        oidc::forget(&connection.tokens, &"an older one".to_owned().into()).await;
        token(&client, &connection, &limits).await.unwrap();
        oidc::forget(&connection.tokens, &TOKEN.to_owned().into()).await;
        token(&client, &connection, &limits).await.unwrap();
    });
    assert_eq!(server.counts(), (2, 0));
}

#[test]
fn refused_credentials_are_told_in_the_words_of_the_identity_provider() {
    let body = r#"{"error":"invalid_client","error_description":"Invalid secret s3cr\"t+/= or s3cr%22t%2B%2F%3D.\r\nTrace ID: 1"}"#;
    let server = serve_with(vec![reply(200, OK)], move |_| reply(401, body));
    let error = failure(send(&server, Resend::Always, &limits(5)));
    assert_eq!(error.kind, Kind::NotAuthenticated);
    assert!(error.message.ends_with("invalid_client: Invalid secret *** or ***."), "{error}");
    assert_eq!(server.counts(), (1, 0));
}

#[test]
fn what_is_no_token_is_told_as_such() {
    let server = serve_with(vec![reply(200, OK)], |_| reply(404, "nothing here"));
    let error = failure(send(&server, Resend::Always, &limits(5)));
    assert_eq!(error.kind, Kind::NotAuthenticated);
    assert!(error.message.ends_with("is token_url correct?"), "{error}");
    for (answer, words) in [
        ("<html>Log in</html>".to_owned(), "it is not JSON"),
        (format!("{{\"access_token\":\"{TOKEN}"), "it is not JSON"),
        (format!("access_token={TOKEN}"), "it is not JSON"),
        ("{\"access_token\":\"\"}".to_owned(), "its access_token is empty"),
        (format!("{{\"access_token\":\"{TOKEN}\\nb\"}}"), "characters that no request can carry"),
        (
            format!("{{\"access_token\":\"{TOKEN}\",\"token_type\":\"mac\"}}"),
            "its token_type is none that CDF takes",
        ),
    ] {
        let server = serve_with(vec![reply(200, OK)], move |_| reply(200, answer.clone()));
        let error = failure(send(&server, Resend::OnlyIfNotReceived, &limits(1)));
        assert_eq!(error.kind, Kind::ConnectionLost, "{error}");
        assert!(error.message.contains("no valid answer to the request for a token"), "{error}");
        assert!(error.message.contains(words) && error.message.contains(&server.address), "{error}");
        assert_eq!(server.counts(), (2, 0));
    }
}

#[test]
fn what_no_request_can_carry_is_not_kept_as_a_token() {
    let server = serve_with(vec![reply(200, OK)], |before| match before {
        0 => reply(200, format!("{{\"access_token\":\"{TOKEN}\\r\\nx: y\"}}")),
        _ => token_answer("3600"),
    });
    let (client, connection) = (client(), server.connection());
    let error = failure(block_on(client.send(&connection, &post(Resend::Always), &limits(0))));
    assert_eq!(error.kind, Kind::ConnectionLost);
    block_on(client.send(&connection, &post(Resend::Always), &limits(0))).unwrap();
    assert_eq!(server.counts(), (2, 1));
}

#[test]
fn a_failing_identity_provider_is_asked_again() {
    let server = serve_with(vec![reply(200, OK)], |before| match before {
        0 => reply(500, SECRET),
        _ => token_answer("3600"),
    });
    assert_eq!(send(&server, Resend::OnlyIfNotReceived, &limits(1)).unwrap().body, OK);
    let server = serve_with(vec![reply(200, OK)], |_| reply(500, in_error(SECRET)));
    let error = failure(send(&server, Resend::OnlyIfNotReceived, &limits(1)));
    assert_eq!(error.kind, Kind::ServerFailure);
    assert!(error.message.contains("identity provider") && error.message.ends_with("***"), "{error}");
    assert_eq!(server.counts(), (2, 0));
}

#[test]
fn nothing_that_cdf_repeats_gives_a_secret_away() {
    for body in [TOKEN.into(), in_error(TOKEN), in_error(SECRET), SECRET.into()] {
        let server = serve(vec![Act::Reply(403, vec![("x-request-id", TOKEN.into())], body)]);
        let error = failure(send(&server, Resend::Always, &limits(0)));
        assert!(matches!(error.kind, Kind::Forbidden | Kind::ConnectionLost), "{error}");
    }
    let shown = format!("{:?}", serve(vec![reply(200, "")]).connection());
    assert!(!shown.contains("s3cr") && !shown.contains("query-secret"), "{shown}");
}

/// An address where nobody listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn who_cannot_be_reached_is_named() {
    let server = serve(vec![reply(200, OK)]);
    let mut connection = server.connection();
    let address = nobody();
    connection.base_url = format!("http://{address}").parse().unwrap();
    let request = post(Resend::OnlyIfNotReceived);
    let error = failure(block_on(client().send(&connection, &request, &limits(1))));
    assert_eq!(error.kind, Kind::CannotConnect);
    assert!(error.message.contains(&format!("CDF at {address}")), "{error}");
    assert!(error.message.contains("refused") && !error.to_string().contains("may have been"), "{error}");
    assert!(error.detail[0].contains("after 2 attempts"), "{error:?}");

    let address = nobody();
    let mut connection = server.connection();
    let Credentials::Client(client_of) = &mut connection.credentials else { panic!("a session") };
    client_of.token_url = format!("http://u:query-secret@{address}/query-secret").parse().unwrap();
    let error = failure(block_on(client().send(&connection, &request, &limits(0))));
    assert_eq!(error.kind, Kind::CannotConnect);
    assert!(error.message.contains(&format!("identity provider at {address}")), "{error}");
}

/// Sends on a connection that has its token already, so that a short timeout is that of the request.
fn send_with_token(server: &Server, resend: Resend, limits: impl FnOnce() -> Limits + Send) -> Error {
    let (client, connection) = (client(), server.connection());
    block_on(async {
        token(&client, &connection, &self::limits(0)).await.unwrap();
        failure(client.send(&connection, &post(resend), &limits()).await)
    })
}

#[test]
fn a_request_that_times_out_names_the_setting() {
    let server = serve(vec![Act::Hang]);
    let hasty = || Limits { request_timeout: Duration::from_millis(200), ..limits(1) };
    let error = send_with_token(&server, Resend::Always, hasty);
    assert_eq!(error.kind, Kind::ConnectionLost);
    assert!(error.message.ends_with("cdf_fdw.request_timeout (200ms)"), "{error}");
    assert!(error.detail[0].contains("after 2 attempts"), "{error:?}");

    let error = send_with_token(&serve(vec![Act::Hang]), Resend::OnlyIfNotReceived, hasty);
    assert_eq!(error.kind, Kind::ConnectionLost);
    assert!(error.to_string().contains("may have been accepted"), "{error}");
    assert!(error.detail.concat().contains("not sent again"), "{error:?}");
}

#[test]
fn a_deadline_that_passes_names_the_setting_and_the_attempt_before() {
    let server = serve(vec![reply(503, in_error("under repair")), Act::Hang]);
    let short = || Limits { deadline: Instant::now() + Duration::from_secs(1), ..limits(9) };
    let error = send_with_token(&server, Resend::Always, short);
    assert_eq!(error.kind, Kind::TimedOut);
    assert!(error.message.contains("cdf_fdw.flush_timeout (10min) passed before POST /assets was answered"));
    assert!(error.detail.iter().any(|line| line.ends_with("HTTP status 503: under repair")), "{error:?}");

    let late = Limits { deadline: Instant::now(), ..limits(9) };
    let server = serve(vec![reply(200, OK)]);
    let error = failure(send(&server, Resend::OnlyIfNotReceived, &late));
    assert_eq!(error.kind, Kind::TimedOut);
    assert!(!error.to_string().contains("may have been"), "{error}");
    assert_eq!(server.counts(), (0, 0));
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    let long = "x".repeat(2000);
    let server = serve(vec![reply(200, long.clone()), reply(400, long)]);
    let mut client = client();
    client.transport.longest_answer = 1000;
    let (connection, request, limits) = (server.connection(), post(Resend::Always), limits(5));
    let result = block_on(client.send(&connection, &request, &limits));
    let error = failure(result);
    assert_eq!(error.kind, Kind::ServerFailure);
    assert!(error.message.contains("more than 1000 bytes"), "{error}");
    let result = block_on(client.send(&connection, &request, &limits));
    assert_eq!(failure(result).kind, Kind::InvalidValue);
    assert_eq!(server.counts().1, 2);
}

#[test]
fn a_token_is_inspected() {
    let body = r#"{"subject":"sub","projects":[{"projectUrlName":"a","groups":[1]},{"projectUrlName":"b"}],
        "capabilities":[{"assetsAcl":{}}]}"#;
    let server = serve(vec![reply(200, body), reply(200, OK)]);
    let (client, connection, limits) = (client(), server.connection(), limits(0));
    let inspection = block_on(client.inspect_token(&connection, &limits)).unwrap();
    assert_eq!((&inspection.subject[..], &inspection.projects[..]), ("sub", &["a".into(), "b".into()][..]));
    assert!(inspection.capabilities[0]["assetsAcl"].is_object());
    assert_eq!(server.requests("/api")[0].path, "/api/v1/token/inspect");
    let Err(RequestError::Failed(error)) = block_on(client.inspect_token(&connection, &limits)) else {
        panic!("an inspection")
    };
    assert_eq!(error.kind, Kind::ConnectionLost);
    assert!(error.message.contains("GET /api/v1/token/inspect"), "{error}");
}
