//! What an identity provider answers with: a token, and how long it is of use.

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;

/// A token is renewed this long before it expires, or at half of its life if that is later.
const MARGIN: Duration = Duration::from_secs(60);

/// How long a token counts as valid when the identity provider does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// The longest use of a token, whatever lifetime the identity provider states.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Characters of the longest token. No server takes headers of that size.
const LONGEST_TOKEN: usize = 64 << 10;

/// What an identity provider answers, or CDF for a session; lifetimes come as number, as text, or not at all.
#[derive(Deserialize)]
struct TokenAnswer {
    token_type: Option<Value>,
    #[serde(alias = "accessToken")]
    access_token: String,
    #[serde(alias = "expiresIn")]
    expires_in: Option<Value>,
    /// Only of sessions, and only where it is before the token expires.
    #[serde(rename = "mustRefreshIn")]
    must_refresh_in: Option<Value>,
}

/// Reads the token of an answer and how long it may be used. A token that no header can hold is refused: if it were kept, it
/// would fail every request until it expires.
///
/// # Errors
/// What is wrong with the answer, in words that quote nothing of it.
pub fn read(body: &[u8]) -> Result<(SecretString, Duration), String> {
    // serde_json's own message may quote the answer.
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
    let mut life = useful_life(answer.expires_in.as_ref());
    if let Some(earlier) = answer.must_refresh_in.filter(|value| !value.is_null()) {
        life = life.min(useful_life(Some(&earlier)));
    }
    Ok((answer.access_token.into(), life))
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
        assert_eq!(read(json!({ "accessToken": "a", "expiresIn": 3600, "mustRefreshIn": null })), Ok(3540));
        assert_eq!(read(json!({ "accessToken": "a", "expiresIn": 3600, "mustRefreshIn": 600 })), Ok(540));
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
}
