//! What the comments on the built-in tables and columns say: what CDF takes in them, as it is declared.

use super::{Column, Resource, Rule, Shape, EXTERNAL_ID_CHARS};

impl Resource {
    /// The comment on the built-in table.
    pub fn comment(&self) -> String {
        let what = format!("CDF: a row is one {}.", self.noun);
        match self.shape {
            Shape::Journal(_) => format!("{what} Rows can only be added; they go last in their transaction."),
            _ => format!("{what} An INSERT updates the one that exists under the same key; COMMIT delivers."),
        }
    }
}

impl Column {
    /// The comment on the column.
    pub fn comment(&self) -> String {
        let text = |min: usize, max: usize| match min {
            0 => format!("at most {max} characters"),
            _ => format!("{min} to {max} characters"),
        };
        let rule = match self.rule {
            Rule::ReadOnly => "read-only: CDF sets it".into(),
            Rule::Id => "CDF's internal id; given in an INSERT, it addresses the existing item".into(),
            Rule::ExternalId => format!("the key; at most {EXTERNAL_ID_CHARS} characters"),
            Rule::Subject => {
                format!("external id of what the row is about; 1 to {EXTERNAL_ID_CHARS} characters")
            }
            Rule::Text { min, max } => text(min, max),
            Rule::ImmutableText { min, max } => format!("{}; cannot be changed later", text(min, max)),
            Rule::OneOf(names) => format!("one of {}", names.join(", ")),
            Rule::Number { min, max } => format!("{min} to {max}"),
            Rule::SequenceColumns => {
                "an array of objects with externalId, name, description, valueType, metadata".into()
            }
            Rule::Bool => "true or false".into(),
            Rule::ImmutableBool => "true or false; cannot be changed later".into(),
            Rule::Timestamp => "a time from 1970 on, in milliseconds".into(),
            Rule::Metadata(limits) => format!(
                "an object of texts: at most {} pairs, {} bytes in a key, {} in a value, {} in all",
                limits.pairs, limits.key, limits.value, limits.total
            ),
            Rule::GeoLocation => "a GeoJSON feature".into(),
            Rule::Labels { max } => format!("external ids of labels, at most {max}"),
            Rule::IdOf => "an internal id; give this or the external id, not both".into(),
            Rule::Ids { max } => format!("internal ids, at most {max}"),
            Rule::Parent => "external id of the parent, which may come in the same transaction".into(),
            Rule::Reference { to, .. } => {
                format!("external id of the {}; give this or its id, not both", to.noun)
            }
            Rule::References { to, max, .. } => format!("external ids of {}s, at most {max}", to.noun),
            Rule::Object(_) => "an object".into(),
            Rule::Objects(_) => "an array of objects".into(),
            Rule::Part(what) => what.into(),
        };
        format!("{}: {rule}", self.property)
    }
}

#[cfg(test)]
mod tests {
    use super::super::RESOURCES;

    #[test]
    fn comments_are_plain() {
        for resource in RESOURCES {
            assert!(resource.comment().is_ascii());
            assert!(resource.columns.iter().all(|column| column.comment().is_ascii()));
        }
    }
}
