//! Refusals by CDF, and what the user is told about them.

use super::identity::Identity;
use super::kind::Kind;
use super::report::{Error, Trace};
use super::text::{brief_endpoint, list_names};

/// What to do when CDF throttles the gateway, and when it fails.
pub const THROTTLED: &str =
    "CDF limits what an identity and a project may ask of it. Load with fewer connections, or with a lower \
     cdf_fdw.max_concurrent_requests.";
pub const FAILED: &str =
    "Try again later. Cognite's support can look the x-request-id up, where there is one.";

/// An answer without success: CDF's `{"error": {…}}`, or whatever a gateway in front of it sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: u16,
    /// CDF's own words; for an answer that is not CDF's JSON, the beginning of its text.
    pub message: String,
    pub missing: Vec<Identity>,
    /// The answer names something missing that is not addressed as items are.
    pub names_others: bool,
    pub duplicated: Vec<Identity>,
    pub request_id: Option<String>,
    /// Method and path, for example `POST /assets`.
    pub endpoint: String,
    /// Whether the answer has the form of CDF's refusals. The answer of a proxy says nothing about CDF's items.
    pub of_cdf: bool,
    /// Whether the request may have been applied nevertheless, perhaps by an earlier attempt.
    pub unsure: bool,
}

impl ApiError {
    /// The error for the user; `capability` is what a 403 asks for, such as `assetsAcl:WRITE`.
    pub fn into_error(self, capability: &str) -> Error {
        let kind = match self.status {
            401 => Kind::NotAuthenticated,
            403 => Kind::Forbidden,
            408 | 425 | 429 => Kind::Throttled,
            409 => Kind::Duplicate,
            404 if !self.of_cdf => Kind::CannotConnect,
            400 | 404 | 422 if !self.missing.is_empty() || self.names_unknown_reference() => {
                Kind::MissingReference
            }
            422 if !self.duplicated.is_empty() => Kind::Duplicate,
            400..=499 => Kind::InvalidValue,
            _ => Kind::ServerFailure,
        };
        let mut error =
            Error::new(kind, format!("CDF refused {}: {}", brief_endpoint(&self.endpoint), self.message));
        error.unsure = self.unsure;
        for (what, names) in [("missing", &self.missing), ("duplicated", &self.duplicated)] {
            if !names.is_empty() {
                error =
                    error.detail(format!("CDF names as {what}: {}", list_names(names.iter(), names.len())));
            }
        }
        let error = error.trace(Some(self.trace()));
        match kind {
            Kind::Forbidden => error.hint(format!(
                "Grant the capability {capability} in CDF to a group of the client that the user mapping names."
            )),
            Kind::CannotConnect => {
                error.hint("Check the project of the user mapping and the base_url of the foreign server.")
            }
            Kind::NotAuthenticated => {
                error.hint("Check the client's access to the project and the credentials of the user mapping.")
            }
            Kind::Throttled => error.hint(THROTTLED),
            Kind::ServerFailure => error.hint(FAILED),
            _ => error,
        }
    }

    /// Whether the refusal concerns the content of the request, so that parts of it may be accepted.
    pub fn is_about_content(&self) -> bool {
        matches!(self.status, 400 | 404 | 409 | 413 | 422)
    }

    /// What a 404 is about.
    pub fn absence(&self) -> Absence {
        let words = self.message.to_lowercase();
        let says = |names: &[&str]| names.iter().any(|name| words.contains(name));
        let path = self.endpoint.split_once(' ').map_or("", |(_, path)| path);
        if !self.missing.is_empty() || self.names_others {
            return Absence::Item;
        }
        // A write creates the database and the table that it goes to.
        let creates = self.endpoint.starts_with("POST") && path.ends_with("/rows");
        if path.starts_with("/raw/dbs/") && !creates {
            return if says(&["database", "table", "row", "key"]) { Absence::Item } else { Absence::Unclear };
        }
        // These requests refer to items of other kinds, and there are no keys to name.
        let others: &[(&str, &[&str])] = &[
            ("/sequences/data", &["sequence", "column", "row"]),
            ("/models/", &["space", "view", "container", "data model", "instance", "node", "edge"]),
            ("/extpipes", &["pipeline", "external id", "externalid"]),
        ];
        let named = others.iter().any(|(prefix, names)| path.starts_with(prefix) && says(names));
        if named && !words.starts_with("not found") {
            return Absence::Item;
        }
        let about_items = path.ends_with("/update") || path.ends_with("/delete");
        if about_items && says(&["resource not found", "id not found", "ids not found"]) {
            return Absence::Item;
        }
        Absence::Endpoint
    }

    /// Whether CDF no longer knows the cursor of a read.
    pub fn lost_the_cursor(&self) -> bool {
        let words = self.message.to_lowercase();
        matches!(self.status, 400 | 404 | 410) && (words.contains("cursor") || words.contains("expired"))
    }

    /// Whether the requested thing does not exist: for a RAW database, table or row CDF answers 400 or 404, and says so in
    /// words.
    pub fn is_absent(&self) -> bool {
        if !self.of_cdf {
            return false;
        }
        let message = self.message.to_lowercase();
        matches!(self.status, 400 | 404) && (message.contains("not found") || message.contains("not exist"))
            || self.status == 404
    }

    /// Identifies the answer, for Cognite's support.
    pub fn trace(&self) -> Trace {
        Trace { endpoint: self.endpoint.clone(), status: self.status, request_id: self.request_id.clone() }
    }

    /// CDF names some unknown references only in words (data sets: `Invalid dataSetIds: 1, 2`, without `missing`).
    fn names_unknown_reference(&self) -> bool {
        const WORDS: [&str; 7] = [
            "unknown parent",
            "parent ids do not exist",
            "Invalid dataSetIds",
            "Label ids not found",
            "Asset ids not found",
            "Data set ids not found",
            "not found",
        ];
        WORDS.iter().any(|words| self.message.contains(words))
    }
}

/// What is missing when CDF answers 404.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Something that the request names.
    Item,
    /// The endpoint, which CDF has. So the server is not CDF, or the project does not exist.
    Endpoint,
    /// The answer does not say.
    Unclear,
}

/// Why a request has no successful answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// CDF answered, and refused.
    Api(ApiError),
    /// There is no usable answer: the connection or the token failed, the deadline passed, or no retries are left.
    Failed(Error),
}

impl From<Error> for RequestError {
    fn from(error: Error) -> Self {
        RequestError::Failed(error)
    }
}

impl RequestError {
    /// See [`ApiError::into_error`].
    pub fn into_error(self, capability: &str) -> Error {
        match self {
            RequestError::Api(api) => api.into_error(capability),
            RequestError::Failed(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, message: &str) -> ApiError {
        ApiError {
            status,
            message: message.into(),
            missing: vec![],
            names_others: false,
            duplicated: vec![],
            request_id: Some("r-1".into()),
            endpoint: "POST /events".into(),
            of_cdf: true,
            unsure: false,
        }
    }

    #[test]
    fn statuses_have_their_sqlstate() {
        let state = |status, message| refused(status, message).into_error("eventsAcl:WRITE").kind.sqlstate();
        assert_eq!(state(400, "bad"), "22023");
        assert_eq!(state(400, "Invalid dataSetIds: 1"), "23503");
        assert_eq!(state(401, "no"), "28000");
        assert_eq!(state(403, "Forbidden"), "42501");
        assert_eq!(state(409, "dup"), "23505");
        assert_eq!(state(429, "slow"), "08006");
        assert_eq!(state(503, "down"), "08006");
    }

    #[test]
    fn a_refusal_tells_message_request_id_and_capability() {
        let error = refused(403, "Forbidden").into_error("eventsAcl:WRITE");
        assert!(error.message.contains("POST /events") && error.message.contains("Forbidden"));
        assert!(error.to_string().ends_with("; x-request-id r-1"), "{error}");
        assert!(error
            .details()
            .iter()
            .any(|line| line.contains("POST /events: HTTP status 403, x-request-id r-1")));
        assert!(error.hint.as_ref().unwrap().contains("eventsAcl:WRITE"));
    }

    #[test]
    fn only_cdf_knows_what_is_absent() {
        let gone = refused(404, "Row not found");
        assert!(gone.is_absent());
        let page = ApiError { of_cdf: false, ..gone };
        assert!(!page.is_absent());
        let error = page.into_error("rawAcl:READ");
        assert_eq!(error.kind.sqlstate(), "08001");
        assert!(error.hint.as_ref().unwrap().contains("base_url"));
    }

    #[test]
    fn an_endpoint_that_is_not_there_is_told_from_an_item() {
        let absence = |endpoint: &str, message: &str| {
            ApiError { endpoint: endpoint.into(), ..refused(404, message) }.absence()
        };
        for endpoint in
            ["POST /assets", "POST /events/list", "POST /timeseries/data", "POST /models/instances/byids"]
        {
            assert_eq!(absence(endpoint, "Not Found: POST /assets"), Absence::Endpoint, "{endpoint}");
        }
        assert_eq!(absence("POST /raw/dbs/d/tables/t/rows", "Not Found"), Absence::Endpoint);
        assert_eq!(absence("GET /raw/dbs/d/tables/t/rows", "Not Found"), Absence::Unclear);
        assert_eq!(absence("GET /raw/dbs/d/tables/t/rows/k", "Row with key 'k' not found"), Absence::Item);
        assert_eq!(absence("GET /raw/dbs", "Not Found"), Absence::Endpoint);
        assert_eq!(absence("POST /sequences/data", "error in sequence: unknown column"), Absence::Item);
        assert_eq!(absence("POST /sequences/data", "Not Found"), Absence::Endpoint);
        assert_eq!(absence("POST /models/instances", "Not Found: POST /models/instances"), Absence::Endpoint);
        assert_eq!(absence("POST /models/views/byids", "The space sp does not exist"), Absence::Item);
        assert_eq!(absence("POST /extpipes/runs", "Extraction pipeline x not found"), Absence::Item);
        let missing = vec![Identity::ExternalId("a".into())];
        assert_eq!(ApiError { missing, ..refused(404, "gone") }.absence(), Absence::Item);
        assert_eq!(ApiError { names_others: true, ..refused(404, "gone") }.absence(), Absence::Item);
    }
}
