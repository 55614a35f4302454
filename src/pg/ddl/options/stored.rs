//! Options as the catalogs hold them.

use std::ffi::c_char;

use pgrx::pg_sys;

use crate::cdf::error::Error;
use crate::cdf::options::errors::missing;
use crate::cdf::options::registry::Holder;
use crate::pg::list::pointers;
use crate::pg::text::from_server;

/// Options as the catalogs hold them.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored(Vec<(String, String)>);

impl Stored {
    /// # Safety
    /// `list` is a List of DefElem, as GetForeignServer and its like return them.
    pub unsafe fn read(list: *mut pg_sys::List) -> Stored {
        let text = |text: *const c_char| {
            // SAFETY: a DefElem's name is NUL-terminated, and so is the result of defGetString.
            unsafe { from_server(text) }
        };
        // SAFETY: the caller's promise.
        let elements = unsafe { pointers::<pg_sys::DefElem>(list) };
        let pairs = elements
            .iter()
            // SAFETY: as above; the options of a foreign object have values, which are strings.
            .map(|element| unsafe { (text((**element).defname), text(pg_sys::defGetString(*element))) })
            .collect();
        Stored(pairs)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// Returns an option that must be there. The validator requires it, but a wrapper may have been without one.
    pub fn required(&self, name: &str, place: Holder) -> Result<&str, Error> {
        self.get(name).ok_or_else(|| missing(name, place.noun()))
    }
}
