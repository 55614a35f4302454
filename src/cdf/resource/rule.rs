//! What CDF takes in a property.

use super::member::Member;
use super::reference::ReferenceTarget;

/// CDF's internal ids: 1 to 2^53 − 1 (API description, `CogniteInternalId`).
pub const ID_RANGE: (i64, i64) = (1, 9_007_199_254_740_991);

/// Characters of an external id (API description, `CogniteExternalId`).
pub const EXTERNAL_ID_CHARS: usize = 255;

/// Bytes of the longest JSON document that CDF takes in any column but those of views: all columns of a RAW row.
pub const DOCUMENT_BYTES: usize = 5 << 20;

/// The property that a parent's external id stands for.
pub const PARENT_ID: &str = "parentId";

/// Limits of a metadata object, in UTF-8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataLimits {
    pub pairs: usize,
    pub key: usize,
    pub value: usize,
    pub total: usize,
}

/// What CDF takes in a property, and how it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Set by CDF: may be selected, never written.
    ReadOnly,
    /// The internal id: addresses an existing item.
    Id,
    /// The external id, by which items are upserted.
    ExternalId,
    /// A text with a limited number of characters.
    Text {
        min: usize,
        max: usize,
    },
    /// As `Text`, but fixed when the item is created.
    ImmutableText {
        min: usize,
        max: usize,
    },
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A number within bounds.
    Number {
        min: f64,
        max: f64,
    },
    /// Definitions of a sequence's columns. CDF has a special form of update for them.
    SequenceColumns,
    Bool,
    /// As `Bool`, but fixed when the item is created.
    ImmutableBool,
    /// Milliseconds since 1970, not before.
    Timestamp,
    /// Text to text.
    Metadata(MetadataLimits),
    /// A GeoJSON feature.
    GeoLocation,
    /// External ids of labels, so many at most.
    Labels {
        max: usize,
    },
    /// The internal id of another item.
    IdOf,
    /// Internal ids of other items, or other integers CDF calls ids; so many at most.
    Ids {
        max: usize,
    },
    /// The external id of the parent, which may come in the same request.
    Parent,
    /// An external id of an item of `resource` that CDF takes only as an id, in `property`.
    Reference {
        to: &'static ReferenceTarget,
        property: &'static str,
    },
    /// As `Reference`, an array of them.
    References {
        to: &'static ReferenceTarget,
        property: &'static str,
        max: usize,
    },
    /// An object of these members.
    Object(&'static [Member]),
    /// An array of such objects.
    Objects(&'static [Member]),
    /// The external id of the item that a journal's row is about.
    Subject,
    /// A part of a datapoint, a RAW row or a sequence row. These have their own encoders.
    Part(Described),
}

/// What a column holds, in words. Each `{}` stands for one of the limits, in order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Described {
    pub what: &'static str,
    pub limits: &'static [Limit],
}

/// A limit, as a description shows it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    Count(usize),
    Number(f64),
    Mebibytes(usize),
    /// The year of a time in milliseconds since 1970.
    Year(i64),
}

impl Rule {
    /// Whether CDF keeps what an item was created with: an update cannot change it.
    pub const fn is_immutable(&self) -> bool {
        matches!(self, Rule::ImmutableBool | Rule::ImmutableText { .. })
    }

    /// The rule of a part that is described without limits.
    pub const fn part(what: &'static str) -> Rule {
        Rule::limited(what, &[])
    }

    /// The rule of a part with limits, for each of which the text has a `{}`.
    pub const fn limited(what: &'static str, limits: &'static [Limit]) -> Rule {
        Rule::Part(Described { what, limits })
    }
}
