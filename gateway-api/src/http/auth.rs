//! The caller: a token of CDF, and the projects that CDF says it may use.

use axum::http::{header, HeaderMap, StatusCode};

use crate::cdf::{invalid_token, Cdf};
use crate::error::ApiError;

/// The longest token that is passed on.
const MAX_TOKEN: usize = 16 << 10;

/// The caller of a request.
pub struct Caller {
    projects: Vec<String>,
}

impl Caller {
    /// Identifies the caller: CDF inspects the token.
    ///
    /// # Errors
    /// 401 for a token that CDF does not accept, or none; 502 if CDF does not answer.
    pub async fn of(headers: &HeaderMap, cdf: &Cdf) -> Result<Caller, ApiError> {
        let header =
            headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, token) = header.split_once(' ').unwrap_or_default();
        let token = token.trim();
        let usable = !token.is_empty()
            && token.len() <= MAX_TOKEN
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !scheme.eq_ignore_ascii_case("bearer") || !usable {
            return Err(invalid_token());
        }
        Ok(Caller { projects: cdf.projects(token).await? })
    }

    /// Whether the caller may use the project.
    pub fn has(&self, project: &str) -> bool {
        self.projects.iter().any(|own| own == project)
    }

    /// Checks that the caller may use the project.
    ///
    /// # Errors
    /// 403 if the caller has no access to the project.
    pub fn needs(&self, project: &str) -> Result<(), ApiError> {
        if self.has(project) {
            Ok(())
        } else {
            Err(ApiError::new(StatusCode::FORBIDDEN, "The token has no access to the project"))
        }
    }
}
