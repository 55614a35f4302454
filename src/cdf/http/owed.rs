//! The answer that a server owes to a request. Nothing else acknowledges the request: a proxy's sign-in page and a cut
//! answer also come with a status of success.

use std::fmt;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::token;

/// The answer that a request is owed. CDF may add members that are not named here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// `{}`: for deletions, and for datapoints and rows that were written.
    Object,
    /// The item that was created.
    Item,
    /// `{"items": […]}` with this many items: those that were created or updated.
    Items(usize),
    /// `{"items": […]}`: a page of a list, or the items asked for by key.
    List,
    /// A RAW row.
    RawRow,
    /// Rows of a sequence, with its columns.
    SequenceRows,
    /// Datapoints, in protobuf, or in JSON if the server has only that.
    Points,
    /// What a token may do.
    Inspection,
    /// An identity provider's token.
    Token,
}

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";

impl Owed {
    /// The media type for the `Accept` header.
    pub fn accept(self) -> &'static str {
        match self {
            Owed::Points => PROTOBUF,
            _ => JSON,
        }
    }

    /// Checks that an answer with a status of success is the one owed.
    ///
    /// # Errors
    /// What is wrong with the answer, in words that quote nothing of it.
    pub fn check(self, content_type: Option<&str>, body: &[u8]) -> Result<(), String> {
        let content_type = content_type.unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if self == Owed::Points && is_protobuf(&media_type) {
            return check_points(body);
        }
        if !is_json(&media_type) {
            return Err(format!(
                "it is not {}",
                if self == Owed::Points { "protobuf or JSON" } else { "JSON" }
            ));
        }
        if self == Owed::Token {
            return token::read(body).map(drop);
        }
        let answer = Members::read(body)?;
        if answer.error {
            return Err("it holds an error".into());
        }
        match self {
            Owed::Object => Ok(()),
            Owed::Item if answer.named => Ok(()),
            Owed::Item => Err("it is no item".into()),
            Owed::Items(sent) => match answer.items {
                Some(items) if items.all != sent => {
                    Err(format!("it holds {} items where {sent} were sent", items.all))
                }
                Some(items) if items.named == sent => Ok(()),
                Some(_) => Err("its items have no keys".into()),
                None => Err("it holds no items".into()),
            },
            Owed::List | Owed::Points => all_objects(answer.items, "items"),
            Owed::RawRow if answer.key && answer.columns => Ok(()),
            Owed::RawRow => Err("it is no RAW row".into()),
            Owed::SequenceRows if answer.definitions => all_objects(answer.rows, "rows"),
            Owed::SequenceRows => Err("it holds no columns".into()),
            Owed::Inspection => all_objects(answer.projects, "projects"),
            Owed::Token => Ok(()),
        }
    }
}

fn is_json(media_type: &str) -> bool {
    media_type == JSON || media_type.starts_with("application/") && media_type.ends_with("+json")
}

/// Whether a media type is one of those used for protobuf.
pub fn is_protobuf(media_type: &str) -> bool {
    matches!(media_type, PROTOBUF | "application/x-protobuf" | "application/vnd.google.protobuf")
}

fn all_objects(elements: Option<Elements>, name: &str) -> Result<(), String> {
    match elements {
        Some(elements) if elements.objects == elements.all => Ok(()),
        Some(_) => Err(format!("its {name} are no objects")),
        None => Err(format!("it holds no {name}")),
    }
}

/// Checks that a message consists of complete items up to its end. The items are decoded later.
fn check_points(mut body: &[u8]) -> Result<(), String> {
    const ITEM: u64 = 1 << 3 | 2;
    let damaged = || "it is not the protobuf message".to_owned();
    while !body.is_empty() {
        let key = prost::encoding::decode_varint(&mut body).map_err(|_| damaged())?;
        let length = prost::encoding::decode_varint(&mut body).map_err(|_| damaged())?;
        let length = usize::try_from(length).ok().filter(|length| key == ITEM && *length <= body.len());
        body = &body[length.ok_or_else(damaged)?..];
    }
    Ok(())
}

/// What an answer's JSON object contains, as far as any check needs it.
#[derive(Default)]
struct Members {
    error: bool,
    /// It has an item's key.
    named: bool,
    items: Option<Elements>,
    rows: Option<Elements>,
    projects: Option<Elements>,
    /// `key` is a text.
    key: bool,
    /// `columns` is an object.
    columns: bool,
    /// `columns` is an array.
    definitions: bool,
}

/// How many elements an array has.
#[derive(Default, Clone, Copy)]
struct Elements {
    all: usize,
    objects: usize,
    /// Objects that have an item's key.
    named: usize,
}

impl Members {
    fn read(body: &[u8]) -> Result<Members, String> {
        // serde_json does not look at the bytes of texts that it skips.
        let text = std::str::from_utf8(body).map_err(|_| "it is not JSON".to_owned())?;
        // serde_json's own message may quote the answer.
        serde_json::from_str(text).map_err(|error| match (body.is_empty(), error.classify()) {
            (true, _) => "it is empty".into(),
            (_, serde_json::error::Category::Eof) => "it ends too early".into(),
            (_, serde_json::error::Category::Data) => "it is no JSON object".into(),
            _ => "it is not JSON".into(),
        })
    }
}

/// Names of members that the checks look at. Most members of an answer are others, and no name is copied.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum MemberName {
    Error,
    Id,
    ExternalId,
    Items,
    Rows,
    Projects,
    Key,
    Columns,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members::default();
                while let Some(name) = map.next_key()? {
                    let value = match name {
                        MemberName::Other => map.next_value::<IgnoredAny>().map(|_| Seen::Other)?,
                        _ => map.next_value::<Seen>()?,
                    };
                    match (name, value) {
                        (_, Seen::Null) => {}
                        (MemberName::Error, _) => members.error = true,
                        (MemberName::Id | MemberName::ExternalId, _) => members.named = true,
                        (MemberName::Items, Seen::Array(elements)) => members.items = Some(elements),
                        (MemberName::Rows, Seen::Array(elements)) => members.rows = Some(elements),
                        (MemberName::Projects, Seen::Array(elements)) => members.projects = Some(elements),
                        (MemberName::Key, Seen::Text) => members.key = true,
                        (MemberName::Columns, Seen::Array(_)) => members.definitions = true,
                        (MemberName::Columns, Seen::Object) => members.columns = true,
                        _ => {}
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Whether an object, or something nested in it, has an item's key. Only CDF's answers have one. Parsing the members would
/// take most of the time that an answer takes.
fn has_key(object: &str) -> bool {
    static KEYS: [LazyLock<Finder<'static>>; 2] =
        [LazyLock::new(|| Finder::new("\"externalId\"")), LazyLock::new(|| Finder::new("\"id\""))];
    KEYS.iter().any(|key| key.find(object.as_bytes()).is_some())
}

/// The kind of a value.
enum Seen {
    Null,
    Text,
    Array(Elements),
    Object,
    Other,
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Seen;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Seen, E> {
                Ok(Seen::Null)
            }
            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Seen, E> {
                Ok(Seen::Text)
            }
            fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Seen, E> {
                Ok(Seen::Other)
            }
            fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Seen, E> {
                Ok(Seen::Other)
            }
            fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Seen, E> {
                Ok(Seen::Other)
            }
            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Seen, E> {
                Ok(Seen::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Seen, A::Error> {
                let mut elements = Elements::default();
                while let Some(element) = sequence.next_element::<&RawValue>()? {
                    elements.all += 1;
                    let object = element.get().starts_with('{');
                    elements.objects += usize::from(object);
                    elements.named += usize::from(object && has_key(element.get()));
                }
                Ok(Seen::Array(elements))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Seen::Object)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Option<&str> = Some("application/json");

    fn check(owed: Owed, body: &str) -> Result<(), String> {
        owed.check(PLAIN, body.as_bytes())
    }

    #[test]
    fn what_is_owed_is_taken_whatever_else_is_in_it() {
        for (owed, body) in [
            (Owed::Object, "{}"),
            (Owed::Object, " {\"items\":[],\"new\":{\"deep\":[[1e999]]}}\n"),
            (Owed::Item, r#"{"id":1,"uploadUrl":"x"}"#),
            (Owed::Items(0), r#"{"items":[]}"#),
            (
                Owed::Items(2),
                r#"{"items":[{"id":1,"x":1e999}, {"space":"s", "externalId" : "a\u00e5"}],"deleted":[]}"#,
            ),
            (Owed::List, r#"{"items":[],"nextCursor":"c"}"#),
            (Owed::List, r#"{"nextCursor":null,"items":[{"name":"db"},{}]}"#),
            (Owed::RawRow, r#"{"key":"k","columns":{"a":[{"b":null}]},"lastUpdatedTime":1}"#),
            (
                Owed::SequenceRows,
                r#"{"id":1,"columns":[{"externalId":"c"}],"rows":[{"rowNumber":1,"values":[]}]}"#,
            ),
            (Owed::Points, r#"{"items":[{"datapoints":[]}]}"#),
            (Owed::Inspection, r#"{"subject":"s","projects":[],"error":null}"#),
            (Owed::Token, r#"{"token_type":"bearer","access_token":"a.b-c"}"#),
        ] {
            assert_eq!(check(owed, body), Ok(()), "{owed:?} {body}");
        }
    }

    #[test]
    fn nothing_else_acknowledges_a_request() {
        let page = "<html><title>Sign in</title></html>";
        let all = [
            Owed::Object,
            Owed::Item,
            Owed::Items(1),
            Owed::List,
            Owed::RawRow,
            Owed::SequenceRows,
            Owed::Points,
            Owed::Inspection,
            Owed::Token,
        ];
        let error = r#"{"error":{"code":500},"id":1,"items":[{"id":1}],"key":"k","columns":{},"rows":[],"projects":[]}"#;
        for owed in all {
            for body in
                ["", page, "[]", "[{}]", "null", "\"ok\"", "1", "{\"items\":[{\"id\":1}", "{}{}", error]
            {
                assert!(check(owed, body).is_err(), "{owed:?} {body}");
            }
            assert!(owed.check(PLAIN, b"{\"id\":1,\"items\":[{\"id\":\"\xff\"}]}").is_err(), "{owed:?}");
            assert!(owed.check(Some("text/html"), b"{}").is_err(), "{owed:?}");
            assert!(owed.check(None, b"{}").is_err(), "{owed:?}");
        }
        for (owed, body) in [
            (Owed::Item, "{}"),
            (Owed::Items(1), "{}"),
            (Owed::Items(1), r#"{"items":[]}"#),
            (Owed::Items(1), r#"{"items":[{}]}"#),
            (Owed::Items(1), r#"{"items":[null]}"#),
            (Owed::Items(1), r#"{"items":["id"]}"#),
            (Owed::Items(1), r#"{"items":[{"id":1,}]}"#),
            (Owed::Items(1), r#"{"items":[{"id":1"name":2}]}"#),
            (Owed::Items(1), r#"{"items":{"id":1}}"#),
            (Owed::Items(1), r#"{"items":[{"id":1},{"id":2}]}"#),
            (Owed::List, "{}"),
            (Owed::List, r#"{"items":[1]}"#),
            (Owed::RawRow, r#"{"key":"k"}"#),
            (Owed::RawRow, r#"{"key":1,"columns":{}}"#),
            (Owed::SequenceRows, r#"{"rows":[]}"#),
            (Owed::Inspection, r#"{"subject":"s"}"#),
        ] {
            assert!(check(owed, body).is_err(), "{owed:?} {body}");
        }
    }

    #[test]
    fn media_types_are_read_as_http_means_them() {
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
            assert_eq!(Owed::Object.check(Some(json), b"{}"), Ok(()), "{json}");
        }
        for other in ["text/plain", "application/jsonp", "json", "", "text/html; application/json"] {
            assert!(Owed::Object.check(Some(other), b"{}").is_err(), "{other}");
        }
    }

    #[test]
    fn points_are_looked_at_to_their_end() {
        let points = |body: &[u8]| Owed::Points.check(Some("application/protobuf"), body);
        assert_eq!(points(b""), Ok(()));
        assert_eq!(points(b"\x0a\x02ab\x0a\x00"), Ok(()));
        for damaged in
            [&b"\x0a\x02a"[..], b"\x0a", b"{}", b"<html>", b"\x12\x00", b"\x0a\xff\xff\xff\xff\x7f"]
        {
            assert!(points(damaged).is_err(), "{damaged:?}");
        }
        assert!(Owed::List.check(Some("application/protobuf"), b"").is_err());
    }
}
