//! Where requests go: a method and a path of CDF's API, put together by segments.

use std::borrow::Cow;
use std::fmt;

use super::url_path::segment;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Change,
    /// What has some keys.
    LookUp,
    /// Pages of all there is, or of what a filter leaves.
    List,
}

/// Where a request goes, below the project. It is shown as errors name it: as `POST /assets`, without its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    method: Method,
    /// Percent-encoded, beginning with a slash.
    path: Cow<'static, str>,
    /// Percent-encoded, with its question mark if there is anything.
    query: String,
    purpose: Purpose,
}

impl Endpoint {
    /// GET of a path that is always the same.
    pub const fn get(path: &'static str) -> Endpoint {
        Endpoint {
            method: Method::Get,
            path: Cow::Borrowed(path),
            query: String::new(),
            purpose: Purpose::List,
        }
    }

    /// POST to a path that is always the same.
    pub const fn post(path: &'static str) -> Endpoint {
        Endpoint {
            method: Method::Post,
            path: Cow::Borrowed(path),
            query: String::new(),
            purpose: Purpose::Change,
        }
    }

    /// A word of CDF's own as the next segment.
    pub fn below(mut self, word: &str) -> Endpoint {
        let path = self.path.to_mut();
        path.push('/');
        path.push_str(word);
        self
    }

    /// A name as the next segment.
    pub fn named(mut self, name: &str) -> Endpoint {
        let path = self.path.to_mut();
        path.push('/');
        path.extend(segment(name));
        self
    }

    /// A name as the next segment; if there is none yet, a word that stands for it, as `{key}` for a key.
    pub fn named_or(self, name: Option<&str>, word: &str) -> Endpoint {
        match name {
            Some(name) => self.named(name),
            None => self.below(&format!("{{{word}}}")),
        }
    }

    /// The request below it that asks for what has some keys.
    pub fn by_ids(self) -> Endpoint {
        Endpoint { purpose: Purpose::LookUp, ..self.below("byids") }
    }

    /// The request below it that lists.
    pub fn list(self) -> Endpoint {
        Endpoint { purpose: Purpose::List, ..self.below("list") }
    }

    /// With one more parameter.
    pub fn with(mut self, parameter: &str, value: impl fmt::Display) -> Endpoint {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(parameter);
        self.query.push('=');
        self.query.extend(segment(&value.to_string()));
        self
    }

    /// With the place where another page of it ended, if there was one.
    pub fn with_cursor(self, cursor: Option<&str>) -> Endpoint {
        match cursor {
            Some(cursor) => self.with("cursor", cursor),
            None => self,
        }
    }

    pub fn method(&self) -> Method {
        self.method
    }

    /// Path and query, as URLs have them.
    pub fn target(&self) -> String {
        format!("{}{}", self.path, self.query)
    }

    /// Method, path and query.
    pub fn whole(&self) -> String {
        format!("{self}{}", self.query)
    }

    /// Bytes of path and query.
    pub fn length(&self) -> usize {
        self.path.len() + self.query.len()
    }

    /// Whether a request there changes anything in CDF, which is asked by POST as well.
    pub fn changes(&self) -> bool {
        self.purpose == Purpose::Change
    }

    /// Whether the body of a request there may name a cursor.
    pub fn takes_cursor_in_body(&self) -> bool {
        self.method == Method::Post && self.purpose == Purpose::List
    }

    /// Whether it goes on where another request ended.
    pub fn has_cursor(&self) -> bool {
        self.query.contains("cursor=")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.as_str(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_segments_of_their_own() {
        let rows = Endpoint::get("/raw/dbs").named("a/b").below("tables").named("?").below("rows");
        assert_eq!(rows.to_string(), "GET /raw/dbs/a%2Fb/tables/%3F/rows");
        let page = rows.with("limit", 10).with_cursor(Some("x&y")).with("columns", "a,b");
        assert_eq!(page.target(), "/raw/dbs/a%2Fb/tables/%3F/rows?limit=10&cursor=x%26y&columns=a%2Cb");
        assert_eq!(page.length(), page.target().len());
        assert!(page.has_cursor() && !page.changes() && !page.takes_cursor_in_body());
        assert_eq!(page.to_string(), "GET /raw/dbs/a%2Fb/tables/%3F/rows");
        assert_eq!(Endpoint::get("/raw/dbs").named_or(None, "db_name").to_string(), "GET /raw/dbs/{db_name}");
    }

    #[test]
    fn what_asks_changes_nothing() {
        let assets = || Endpoint::post("/assets");
        assert!(assets().changes() && assets().below("delete").changes());
        assert!(!assets().list().changes() && !assets().by_ids().changes());
        assert!(assets().list().takes_cursor_in_body() && !assets().by_ids().takes_cursor_in_body());
        assert_eq!(assets().by_ids().whole(), "POST /assets/byids");
    }
}
