//! Where external ids are resolved to internal ids.

use crate::cdf::http::endpoint::Endpoint;

/// A resource that others refer to by internal id.
#[derive(Debug, PartialEq, Eq)]
pub struct ReferenceTarget {
    /// What one of them is called, for example `data set`.
    pub noun: &'static str,
    /// The path of such items.
    pub path: &'static str,
    pub capability: &'static str,
}

impl ReferenceTarget {
    /// The request for items by key.
    pub fn by_ids(&self) -> Endpoint {
        Endpoint::post(self.path).by_ids()
    }
}

pub static DATA_SET: ReferenceTarget =
    ReferenceTarget { noun: "data set", path: super::paths::DATA_SETS, capability: "datasetsAcl:READ" };
pub static ASSET: ReferenceTarget =
    ReferenceTarget { noun: "asset", path: super::paths::ASSETS, capability: "assetsAcl:READ" };
