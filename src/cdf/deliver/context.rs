//! What all requests of a flush share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use super::fresh::Fresh;
use crate::cdf::http::client::Client;
use crate::cdf::http::request::Limits;

/// An external id to look up: the connection (projects have their own items, and a role sees only some of them), the
/// path, and the external id itself.
pub(super) type ReferenceName = (usize, &'static str, String);

/// What all requests of a flush share.
pub struct Context {
    pub client: Client,
    pub limits: Limits,
    pub(super) fresh: Fresh,
    /// Internal ids that were looked up already.
    ids: Mutex<HashMap<ReferenceName, i64>>,
}

impl Context {
    pub fn new(client: Client, limits: Limits) -> Self {
        Context { client, limits, fresh: Fresh::default(), ids: Mutex::default() }
    }

    /// Records that nothing in the flush refers to anything else in it.
    pub fn without_references(&mut self) {
        self.fresh.idle = true;
    }

    /// Returns the internal ids that were looked up already.
    pub(super) fn ids(&self) -> MutexGuard<'_, HashMap<ReferenceName, i64>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
