//! The errors for rows that are not delivered. Errors that only one shape can raise are in that shape's file.

use std::borrow::Cow;

use super::body::{named, BodyRows};
use super::transfer::Transfer;
use crate::cdf::buffer::Destination;
use crate::cdf::error::{ApiError, Error, Fate, Kind, Noun, RequestError};
use crate::cdf::resource::{Items, Role};

impl Destination {
    /// Returns the resource, and the place in RAW, as errors name it.
    pub fn name(&self) -> String {
        let raw = self.raw.as_ref().map(|(database, table)| (database.as_str(), table.as_str()));
        self.resource.named(self.view.as_deref().map(|view| &view.name as _), raw)
    }
}

impl Transfer<'_> {
    /// Returns the name that the rows' table gives a built-in column.
    pub(super) fn column_name(&self, name: &'static str) -> Cow<'static, str> {
        self.destination.resource.column_name(name, self.request.header.mode.naming)
    }

    /// Returns the name of the column with a role, as the table that the rows came from calls it.
    pub(super) fn name_of(&self, role: Role) -> Cow<'static, str> {
        self.destination.resource.named_as(role, self.request.header.mode.naming)
    }

    /// Makes an error that follows from CDF's last answers.
    pub(super) fn error(&self, kind: Kind, message: impl Into<String>) -> Error {
        self.with_answer(Error::new(kind, message).about(self.destination.name())).trace(self.trace())
    }

    /// Adds CDF's last answer.
    fn with_answer(&self, error: Error) -> Error {
        match &self.answer {
            Some(api) => error
                .detail(format!("CDF's answer to {}: {}", api.endpoint, api.message))
                .trace(Some(api.trace())),
            None => error,
        }
    }

    /// Makes the error of a refused request, with the rows that it is about.
    pub(super) fn refused(&self, api: ApiError, noun: Noun, rows: Vec<String>, of: usize) -> Error {
        let about_content = api.is_about_content();
        let error = api.into_error(&self.destination.resource.write_capability());
        let error = error.about(self.destination.name()).rows(Fate::Refused, noun, rows, of);
        if about_content {
            error.or_hint("Correct what CDF refuses, and run the load again.")
        } else {
            error
        }
    }

    /// Makes the error of a request without success; `rows`: how many rows its `names` stand for.
    pub(super) fn failed(
        &mut self,
        error: RequestError,
        noun: Noun,
        names: Vec<String>,
        of: usize,
        rows: usize,
    ) -> Error {
        match error {
            RequestError::Api(api) => {
                self.unknown += if api.unsure { rows } else { 0 };
                self.refused(api, noun, names, of)
            }
            RequestError::Failed(error) => {
                self.unknown += if error.unsure { rows } else { 0 };
                error.about(self.destination.name()).rows(Fate::UnderWay, noun, names, of)
            }
        }
    }

    /// Makes the error of a look-up that got no answer.
    pub(super) fn unread(&self, error: RequestError) -> Error {
        error.into_error(&self.destination.resource.read_capability()).about(self.destination.name())
    }

    /// Makes the error for rows that an UPDATE has read and that no longer exist.
    pub(super) fn gone(&self, body: &BodyRows<'_>, rows: &[usize]) -> Error {
        let noun = self.destination.resource.noun;
        self.error(Kind::MissingReference, format!("the {noun} to be updated is gone"))
            .refusing(named(body, rows), rows.len())
            .hint("Something else has deleted it since the statement read it. Run the load again.")
    }

    /// Makes the error for rows that exist although the table's option on_conflict is `error`.
    pub(super) fn exists(&self, body: &BodyRows<'_>, rows: &[usize]) -> Error {
        let noun = self.destination.resource.noun;
        self.error(Kind::Duplicate, format!("the {noun} exists in CDF already"))
            .refusing(named(body, rows), rows.len())
            .hint("The table's option on_conflict is \"error\".")
    }

    /// Makes the error for rows that can only update an item, which does not exist.
    pub(super) fn incomplete(&self, items: &Items, body: &BodyRows<'_>, rows: &[usize]) -> Error {
        let required: Vec<_> = items.required.iter().map(|name| self.column_name(name)).collect();
        let noun = self.destination.resource.noun;
        self.error(Kind::MissingValue, format!("a new {noun} needs a value for {}", required.join(", ")))
            .refusing(named(body, rows), rows.len())
            .hint(format!(
                "No item with this {} exists in CDF that the row could update.",
                self.name_of(Role::ExternalId)
            ))
    }
}
