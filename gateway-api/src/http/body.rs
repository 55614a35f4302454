//! Reads the bodies of requests: within bounds, and then field by field, so that an error need not quote a value, which
//! may be a secret.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use axum::http::{header, HeaderMap, StatusCode};
use serde_json::{Map, Value};

use crate::error::ApiError;

/// The longest body, both as it is sent and as it is unpacked.
pub const MAX_BODY: usize = 1 << 20;

/// How long a caller may take to send it.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// Reads a body of `{"items": […]}` with 1 to `most` items and nothing else.
pub async fn items(headers: &HeaderMap, body: Body, most: usize) -> Result<Vec<Fields>, ApiError> {
    let mut body = read(headers, body).await?;
    let items = body.items(most)?;
    body.end()?;
    Ok(items)
}

/// Reads a body of JSON, which may be compressed.
pub async fn read(headers: &HeaderMap, body: Body) -> Result<Fields, ApiError> {
    let bytes = tokio::time::timeout(READ_TIMEOUT, axum::body::to_bytes(body, MAX_BODY))
        .await
        .map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "The body did not come in time"))?
        .map_err(|_| too_large())?;
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"));
    match encoding.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "identity") => parse(&bytes),
        Some("gzip" | "x-gzip") => parse(&unpack(&bytes)?),
        Some(_) => {
            Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body must be JSON, plain or gzip"))
        }
    }
}

fn too_large() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("The body is longer than {MAX_BODY} bytes"))
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, ApiError> {
    let mut text = Vec::new();
    let mut unpacked = flate2::read::MultiGzDecoder::new(bytes).take(MAX_BODY as u64 + 1);
    unpacked.read_to_end(&mut text).map_err(|_| ApiError::bad_request("The body is not gzip"))?;
    if text.len() > MAX_BODY {
        return Err(too_large());
    }
    Ok(text)
}

fn parse(text: &[u8]) -> Result<Fields, ApiError> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(fields)) => Ok(Fields { path: String::new(), fields }),
        Ok(_) => Err(ApiError::bad_request("The body must be a JSON object")),
        Err(error) => Err(ApiError::bad_request(format!(
            "The body is not JSON: line {}, column {}",
            error.line(),
            error.column()
        ))),
    }
}

/// An object of a body.
#[derive(Debug)]
pub struct Fields {
    path: String,
    fields: Map<String, Value>,
}

impl Fields {
    fn name(&self, field: &str) -> String {
        if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.path)
        }
    }

    fn expected(&self, field: &str, what: &str) -> ApiError {
        ApiError::bad_request(format!("{} must be {what}", self.name(field)))
    }

    fn required(&self, field: &str) -> ApiError {
        ApiError::bad_request(format!("{} is required", self.name(field)))
    }

    /// Takes the value of a field out of the object. Null counts as absent.
    fn take(&mut self, field: &str) -> Option<Value> {
        self.fields.remove(field).filter(|value| !value.is_null())
    }

    /// Takes a text. An empty one counts as absent.
    pub fn text(&mut self, field: &str) -> Result<Option<String>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            // No text of PostgreSQL can hold a NUL.
            Some(Value::String(text)) if text.contains('\0') => {
                Err(self.expected(field, "a text without U+0000"))
            }
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(_) => Err(self.expected(field, "a text")),
        }
    }

    /// Takes a text that must be there.
    pub fn required_text(&mut self, field: &str) -> Result<String, ApiError> {
        self.text(field)?.ok_or_else(|| self.required(field))
    }

    /// Takes a name for something in PostgreSQL.
    pub fn new_name(&mut self, field: &str) -> Result<Option<String>, ApiError> {
        match self.text(field)? {
            Some(name) if name.chars().count() > 60 || name.len() > 63 => {
                Err(self.expected(field, "a name of up to 60 characters and 63 bytes"))
            }
            name => Ok(name),
        }
    }

    /// Takes a name that must be there.
    pub fn required_new_name(&mut self, field: &str) -> Result<String, ApiError> {
        self.new_name(field)?.ok_or_else(|| self.required(field))
    }

    /// Takes a boolean, false when absent.
    pub fn flag(&mut self, field: &str) -> Result<bool, ApiError> {
        match self.take(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(self.expected(field, "true or false")),
        }
    }

    /// Takes an integer.
    pub fn number(&mut self, field: &str) -> Result<Option<i64>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or_else(|| self.expected(field, "a number")),
        }
    }

    /// Takes an object, to read its fields.
    pub fn object(&mut self, field: &str) -> Result<Option<Fields>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Fields { path: self.name(field), fields })),
            Some(_) => Err(self.expected(field, "an object")),
        }
    }

    /// Takes an object that must be there.
    pub fn required_object(&mut self, field: &str) -> Result<Fields, ApiError> {
        self.object(field)?.ok_or_else(|| self.required(field))
    }

    /// Returns the object as it is.
    pub fn into_value(self) -> Value {
        Value::Object(self.fields)
    }

    /// Takes a list of column names.
    pub fn names(&mut self, field: &str) -> Result<Vec<String>, ApiError> {
        let what = "a list of names of up to 63 bytes";
        let Some(Value::Array(values)) = self.take(field) else { return Err(self.expected(field, what)) };
        let name = |value: Value| match value {
            Value::String(name) if !name.is_empty() && name.len() <= 63 && !name.contains('\0') => Ok(name),
            _ => Err(self.expected(field, what)),
        };
        values.into_iter().map(name).collect()
    }

    /// Takes the objects of `items`, at least one and at most `most`.
    pub fn items(&mut self, most: usize) -> Result<Vec<Fields>, ApiError> {
        let items = match self.take("items") {
            Some(Value::Array(items)) if !items.is_empty() && items.len() <= most => items,
            _ => return Err(self.expected("items", &format!("a list of 1 to {most} items"))),
        };
        let object = |(number, item): (usize, Value)| match item {
            Value::Object(fields) => Ok(Fields { path: format!("items[{number}]"), fields }),
            _ => Err(ApiError::bad_request(format!("items[{number}] must be an object"))),
        };
        items.into_iter().enumerate().map(object).collect()
    }

    /// Checks that the object has no other fields.
    pub fn end(&self) -> Result<(), ApiError> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(field) => {
                let shown: String = field.chars().take(60).collect();
                Err(ApiError::bad_request(format!("Unknown field {}", self.name(&shown))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fields(text: &[u8]) -> Result<Fields, ApiError> {
        read(&HeaderMap::new(), Body::from(text.to_vec())).await
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_without_the_value() {
        let mut body =
            fields(br#"{"a": {"secret": ["geheim"], "name": "x\u0000", "more": 1}}"#).await.unwrap();
        let mut inner = body.required_object("a").unwrap();
        assert_eq!(inner.text("secret").unwrap_err().message, "a.secret must be a text");
        assert!(inner.text("name").unwrap_err().message.contains("U+0000"));
        assert_eq!(inner.required_text("id").unwrap_err().message, "a.id is required");
        assert_eq!(inner.end().unwrap_err().message, "Unknown field a.more");
        assert!(!fields(b"{\"secret\": geheim}").await.unwrap_err().message.contains("geheim"));
        assert!(fields(b"[1]").await.is_err());
    }

    #[tokio::test]
    async fn bodies_are_bounded_also_when_unpacked() {
        let long = vec![b' '; MAX_BODY + 1];
        assert_eq!(fields(&long).await.unwrap_err().status, StatusCode::PAYLOAD_TOO_LARGE);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packer, &long).unwrap();
        let packed = packer.finish().unwrap();
        assert!(packed.len() < MAX_BODY / 10);
        assert_eq!(
            read(&headers, Body::from(packed)).await.unwrap_err().status,
            StatusCode::PAYLOAD_TOO_LARGE
        );
        assert_eq!(read(&headers, Body::from("no")).await.unwrap_err().status, StatusCode::BAD_REQUEST);
    }

    mod fuzz {
        use proptest::prelude::*;

        use super::*;

        /// JSON of any form, of which every text is a secret; some of it is damaged.
        fn sent() -> impl Strategy<Value = Vec<u8>> {
            let name = prop::sample::select(vec!["items", "auth", "a", "update", "ü\\u0041", ""]);
            let leaf = prop::sample::select(vec![
                r#""geheim""#,
                r#""geheim\u0000""#,
                "null",
                "true",
                "17",
                "1e999",
                r#""""#,
            ]);
            let value = leaf.prop_map(str::to_owned).prop_recursive(5, 40, 5, move |inner| {
                let members =
                    prop::collection::vec((name.clone(), inner.clone()), 0..5).prop_map(|members| {
                        let members: Vec<String> =
                            members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                        format!("{{{}}}", members.join(","))
                    });
                let elements =
                    prop::collection::vec(inner, 0..5).prop_map(|all| format!("[{}]", all.join(",")));
                prop_oneof![3 => members, 1 => elements]
            });
            let deep =
                (1usize..3000).prop_map(|levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
            let text = prop_oneof![20 => value, 1 => deep].prop_map(String::into_bytes);
            let whole = prop_oneof![9 => text, 1 => prop::collection::vec(any::<u8>(), 0..99)];
            let damage = prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
            (whole, damage).prop_map(|(mut bytes, damage)| {
                if let Some((at, byte)) = damage.filter(|_| !bytes.is_empty()) {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                bytes
            })
        }

        proptest! {
            #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

            #[test]
            fn a_body_is_read_or_refused_without_its_values(bytes in sent(), packed in any::<bool>()) {
                let mut headers = HeaderMap::new();
                if packed {
                    headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
                }
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                let mut told = Vec::new();
                match runtime.block_on(read(&headers, Body::from(bytes.clone()))) {
                    Err(error) => told.push(error),
                    Ok(mut fields) => {
                        let object = serde_json::from_slice::<Value>(&bytes).is_ok_and(|value| value.is_object());
                        prop_assert!(packed || object);
                        told.extend(fields.required_text("a").err());
                        told.extend(fields.flag("update").err());
                        told.extend(fields.names("auth").err());
                        told.extend(fields.items(3).err());
                        told.extend(fields.number("").err());
                    }
                }
                for error in told {
                    prop_assert!(!error.message.contains("geheim"), "{}", error.message);
                    prop_assert!(error.status.is_client_error());
                }
            }
        }
    }
}
